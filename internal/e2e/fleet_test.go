package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// previousPrograms are the programs of the version before the Xray of today: node-agent and a
// stock xray of 26.3.27, in the folder that PREVIOUS_PROGRAMS names. Without it the test is
// skipped, and says how they are built.
func previousPrograms(t *testing.T) Programs {
	t.Helper()
	folder := os.Getenv("PREVIOUS_PROGRAMS")
	if folder == "" {
		t.Skip("NOT RUN: PREVIOUS_PROGRAMS names no folder with the programs of the version before. CONTRIBUTING.md says how they are built")
	}
	return Programs{Agent: filepath.Join(folder, "node-agent"), Xray: filepath.Join(folder, "xray"), Older: true}
}

// fleet is a Core of today with a node of today, "node", and one of the version before, "older".
type fleet struct {
	*world
	previous Programs
	older    *Agent
	targets  map[Account]*Target // what each account reached
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	previous := previousPrograms(t)
	f := &fleet{world: newWorld(t), previous: previous, targets: map[Account]*Target{}}
	token, err := f.core.AddNode(f.ctx, "older")
	must(t, err)
	// AddNode's outbound has finalRules, which Xray 26.3.27 does not know and does not need.
	must(t, f.core.AddOutbound(f.ctx, "older", json.RawMessage(`{"tag":"direct","protocol":"freedom"}`)))
	f.older, err = NewAgent(f.ctx, previous, filepath.Join(f.dir, "older"), quickConfig, token)
	must(t, err)
	t.Cleanup(func() {
		f.older.Kill()
		f.showLog("older agent", f.older.process)
	})
	must(t, f.agent.Start(f.ctx))
	must(t, f.older.Start(f.ctx))
	return f
}

// add adds an inbound to a node and returns it with what Core warns of.
func (f *fleet) add(node string, inbound map[string]any) (p Protocol, warnings string) {
	f.t.Helper()
	raw, err := json.Marshal(inbound)
	must(f.t, err)
	file := filepath.Join(f.dir, "inbound.json")
	must(f.t, os.WriteFile(file, raw, 0o600))
	stdout, warnings, err := output(f.ctx, f.core.path, "protocol", "add", "--node", node, "--inbound", file, "--data-dir", f.core.dir, "--output", "json")
	must(f.t, err)
	must(f.t, json.Unmarshal([]byte(stdout), &p))
	return p, warnings
}

// mKCPInbound is an inbound over mKCP whose datagrams have the mask.
func mKCPInbound(mask map[string]any) map[string]any {
	return vlessInbound(0, masked(transport("kcp", map[string]any{}), "udp", mask))
}

// One mask in the words of each version.
var (
	oldMask = map[string]any{"type": "header-dtls"}
	newMask = map[string]any{"type": "mkcp-legacy", "settings": map[string]any{"header": "dtls"}}
)

// clientOfVersion starts a stock client of these programs for an inbound.
func (f *fleet) clientOfVersion(programs Programs, p Protocol, sub Subscription, stream map[string]any) *Client {
	f.t.Helper()
	outbound := map[string]any{"protocol": "vless", "settings": vlessSettings(p.Port, sub)}
	if stream != nil {
		outbound["streamSettings"] = stream
	}
	f.n++
	c, err := NewClient(f.ctx, programs, filepath.Join(f.dir, fmt.Sprintf("client-%d", f.n)), outbound)
	must(f.t, err)
	f.t.Cleanup(func() {
		c.Kill()
		f.showLog("client", c.process)
	})
	return c
}

// A node of the version before and one of today under one Core: clients of both versions are
// served by both and counted, and an edit reaches both. What one of the two cannot take is said
// by name when it is added, and disturbs nothing else. The older node serves what it was too
// old for once it is upgraded.
func TestMixedFleet(t *testing.T) {
	f := newFleet(t)
	nodes := []string{"node", "older"}
	inbounds := map[string]Protocol{}
	for _, node := range nodes {
		var warnings string
		if inbounds[node], warnings = f.add(node, vlessInbound(0, nil)); warnings != "" {
			t.Errorf("an inbound that every version has is warned of on %s: %s", node, warnings)
		}
	}
	alice, bob := f.subscriber("alice"), f.subscriber("bob")
	for _, node := range nodes {
		must(t, f.core.Synced(f.ctx, node))
	}
	f.wantVersions()
	conns := map[Account]net.Conn{}
	for _, node := range nodes {
		for sub, programs := range map[*Subscription]Programs{&alice: f.progs, &bob: f.previous} {
			account := Account{sub.UserID, inbounds[node].ID}
			f.targets[account] = f.newContentTarget()
			conns[account] = f.dial(f.clientOfVersion(programs, inbounds[node], *sub, nil), f.targets[account])
			must(t, exchangeContents(conns[account], 100_003, 200_009))
		}
	}

	tooNew := f.tooNew(bob)
	f.tooOld(bob)
	var disabled any
	must(t, f.core.Do(f.ctx, &disabled, "subscription", "disable", alice.UUID))
	known := time.Now()
	for _, node := range nodes {
		p := inbounds[node]
		if err := Within(f.ctx, time.Until(known.Add(cutWithin)), f.targets[Account{alice.UserID, p.ID}].allEnded); err != nil {
			t.Errorf("alice, who was removed, is still served by %s: %v", node, err)
		}
		must(t, exchangeContents(conns[Account{bob.UserID, p.ID}], 1000, 1000))
	}

	must(t, f.older.Stop())
	f.older.path = f.progs.Agent
	must(t, os.WriteFile(f.older.file("config.toml"), []byte(openLoopback(quickConfig)), 0o600))
	must(t, f.older.Start(f.ctx))
	must(t, f.core.AddOutbound(f.ctx, "older", json.RawMessage(freedomToLoopback))) // which it needs now
	f.serves(f.progs, tooNew, bob, newMask)
	must(t, f.agent.Stop())
	must(t, f.older.Stop())
	want := map[Account]Traffic{}
	for account, target := range f.targets {
		want[account] = target.Traffic()
	}
	f.wantUsage(want)
}

// tooNew adds to the older node an inbound that only today's Xray takes, and one in the older
// words. The node gets the second one alone. It returns the first one.
func (f *fleet) tooNew(sub Subscription) Protocol {
	f.t.Helper()
	left, warnings := f.add("older", mKCPInbound(newMask))
	want := fmt.Sprintf(`node older has Xray 26.3.27, protocol %s: the mask "mkcp-legacy" needs Xray 26.6.1`, left.Tag)
	if !strings.Contains(warnings, want) {
		f.t.Errorf("Core warns of %q, want %q", warnings, want)
	}
	served, warnings := f.add("older", mKCPInbound(oldMask))
	if warnings != "" {
		f.t.Errorf("Core warns of what the older node has: %s", warnings)
	}
	f.serves(f.previous, served, sub, oldMask)
	must(f.t, f.core.Synced(f.ctx, "older"))
	var all []struct{ Tag, Status string }
	must(f.t, f.core.Do(f.ctx, &all, "protocol", "list", "--node", "older"))
	for _, p := range all {
		if want := map[bool]string{true: "unsupported", false: "active"}[p.Tag == left.Tag]; p.Status != want {
			f.t.Errorf("inbound %s of the older node is %s, want %s", p.Tag, p.Status, want)
		}
	}
	return left
}

// tooOld adds to the node of today an inbound in the older words, which Core refuses in the
// node's words, and one in today's.
func (f *fleet) tooOld(sub Subscription) {
	f.t.Helper()
	file := filepath.Join(f.dir, "too-old.json")
	raw, err := json.Marshal(mKCPInbound(oldMask))
	must(f.t, err)
	must(f.t, os.WriteFile(file, raw, 0o600))
	_, said, err := output(f.ctx, f.core.path, "protocol", "add", "--node", "node", "--inbound", file, "--port", "1", "--data-dir", f.core.dir)
	if err == nil || !strings.Contains(said, "nothing was changed") || !strings.Contains(said, "header-dtls") {
		f.t.Errorf("Core says %q, %v", said, err)
	}
	served, warnings := f.add("node", mKCPInbound(newMask))
	if warnings != "" {
		f.t.Errorf("Core warns of what the node has: %s", warnings)
	}
	f.serves(f.progs, served, sub, newMask)
}

// serves moves bytes of a subscription through an mKCP inbound, once its node has it.
func (f *fleet) serves(programs Programs, p Protocol, sub Subscription, mask map[string]any) {
	f.t.Helper()
	target := f.newContentTarget()
	f.targets[Account{sub.UserID, p.ID}] = target
	client := f.clientOfVersion(programs, p, sub, masked(transport("kcp", map[string]any{}), "udp", mask))
	must(f.t, Eventually(f.ctx, func() error {
		conn, err := client.Dial(target.Addr())
		if err != nil {
			return err
		}
		defer conn.Close()
		return errors.Join(conn.SetDeadline(time.Now().Add(Patience/10)), exchangeContents(conn, 10_007, 20_011))
	}))
}

// wantVersions checks what Core knows of the nodes' versions.
func (f *fleet) wantVersions() {
	f.t.Helper()
	for node, says := range map[string]string{"node": " xray/", "older": "(xray 26.3.27"} {
		var shown struct{ Agent string }
		must(f.t, f.core.Do(f.ctx, &shown, "node", "show", node))
		if !strings.Contains(shown.Agent, says) {
			f.t.Errorf("Core knows %q of %s, want %q in it", shown.Agent, node, says)
		}
	}
}
