package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// threeNodes is a Core with three nodes, "node", "b" and "c", that share a template.
type threeNodes struct {
	*world
	target *Target
	// witnesses are connections that no edit is about.
	witnesses map[string]net.Conn
}

func newThreeNodes(t *testing.T) *threeNodes {
	t.Helper()
	w := &threeNodes{world: newWorld(t), witnesses: map[string]net.Conn{}}
	agents := []*Agent{w.agent}
	for _, name := range []string{"b", "c"} {
		token, err := w.core.AddNode(w.ctx, name)
		must(t, err)
		agent, err := NewAgent(w.ctx, w.progs, filepath.Join(w.dir, "agent-"+name), quickConfig, token)
		must(t, err)
		t.Cleanup(func() {
			if agent.process != nil {
				agent.Kill()
				w.showLog("agent of "+name, agent.process)
			}
		})
		agents = append(agents, agent)
	}
	w.edit("protocol", "add", "--template", "main", "--protocol", "vless", "--listen", "127.0.0.1", "--port", w.port())
	for _, name := range []string{"node", "b", "c"} {
		w.edit("protocol", "add", "--node", name, "--template", "main", "--port", w.port())
	}
	w.edit("protocol", "add", "--node", "c", "--template", "main", "--port", w.port(), "--tag", "second")
	for _, agent := range agents {
		must(t, agent.Start(w.ctx))
	}
	for _, name := range []string{"node", "b", "c"} {
		must(t, w.core.Synced(w.ctx, name))
	}
	w.target = w.world.target()
	return w
}

func (w *threeNodes) port() string {
	w.t.Helper()
	port, err := FreePort()
	must(w.t, err)
	return fmt.Sprint(port)
}

// edit runs a command that has to succeed.
func (w *threeNodes) edit(args ...string) {
	w.t.Helper()
	w.wantExit(0, args...)
}

// change runs a command and waits until the nodes run it. Afterwards all witnesses are served,
// and the nodes other than those that are named have the revision of before.
func (w *threeNodes) change(nodes string, args ...string) {
	w.t.Helper()
	before := w.revisions()
	w.edit(append(args, "--wait=2m")...)
	after := w.revisions()
	for _, name := range []string{"node", "b", "c"} {
		if concerned := strings.Contains(" "+nodes+" ", " "+name+" "); (after[name] > before[name]) != concerned {
			w.t.Errorf("%v: node %s had revision %d and has %d, is concerned: %t", args, name, before[name], after[name], concerned)
		}
	}
	w.serves(fmt.Sprint(args))
}

func (w *threeNodes) revisions() map[string]int64 {
	w.t.Helper()
	var nodes []struct {
		Name     string
		Revision int64
	}
	must(w.t, w.core.Do(w.ctx, &nodes, "node", "list"))
	all := map[string]int64{}
	for _, n := range nodes {
		all[n.Name] = n.Revision
	}
	return all
}

// serves checks that all witnesses are served.
func (w *threeNodes) serves(when string) {
	w.t.Helper()
	for name, conn := range w.witnesses {
		must(w.t, conn.SetDeadline(time.Now().Add(time.Minute)))
		if err := Exchange(conn, 10, 10); err != nil {
			w.t.Fatalf("%s: the connection of %s is cut: %v", when, name, err)
		}
	}
}

// add adds a user with a subscription.
func (w *threeNodes) add(name string, flags ...string) (s Subscription) {
	w.t.Helper()
	w.edit("user", "add", name)
	must(w.t, w.core.Do(w.ctx, &s, append([]string{"subscription", "add", "--user", name, "--wait=2m"}, flags...)...))
	return s
}

// places are the inbounds of a subscription's links, as NODE-TAG.
func places(s Subscription) string {
	var all []string
	for _, link := range s.Links {
		_, place, _ := strings.Cut(link, "#")
		all = append(all, place)
	}
	return strings.Join(all, " ")
}

// clientOf starts a stock client with the link to one place.
func (w *threeNodes) clientOf(s Subscription, place string) *Client {
	w.t.Helper()
	for _, link := range s.Links {
		if strings.HasSuffix(link, "#"+place) {
			return w.linkClient(link)
		}
	}
	w.t.Fatalf("subscription %d has no link to %s: %s", s.ID, place, places(s))
	return nil
}

// connect opens a connection that is served.
func (w *threeNodes) connect(client *Client) net.Conn {
	w.t.Helper()
	var conn net.Conn
	must(w.t, Eventually(w.ctx, func() (err error) {
		if conn, err = client.Dial(w.target.Addr()); err != nil {
			return err
		}
		if err = conn.SetDeadline(time.Now().Add(time.Minute)); err == nil {
			err = Exchange(conn, 10, 10)
		}
		if err != nil {
			_ = conn.Close()
		}
		return err
	}))
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// isCut waits until a connection has ended.
func (w *threeNodes) isCut(what string, conn net.Conn) {
	w.t.Helper()
	must(w.t, conn.SetDeadline(time.Time{}))
	select {
	case err := <-awaitEnd(conn):
		w.t.Logf("%s: the connection has ended: %v", what, err)
	case <-time.After(time.Minute):
		w.t.Fatalf("%s: the connection is served on", what)
	}
}

// changeOtherNouns adds, edits and removes a noun of each kind that no client's admission depends on. No
// connection ends.
func (w *threeNodes) changeOtherNouns() {
	w.t.Helper()
	file := func(name, text string) string {
		path := filepath.Join(w.dir, name)
		must(w.t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	w.change("", "plan", "add", "basic", "--limit", "10GiB")
	w.change("", "plan", "edit", "basic", "--limit-ips", "2")
	w.change("", "plan", "remove", "basic", "--yes")

	var host struct{ ID int64 }
	must(w.t, w.core.Do(w.ctx, &host, "host", "add", "--protocol", "c/main", "--address", "127.0.0.1"))
	w.change("", "host", "edit", fmt.Sprint(host.ID), "--remark", "{node} again", "--port", "8443")
	w.change("", "host", "edit", fmt.Sprint(host.ID), "--enabled=false")
	w.change("", "host", "remove", fmt.Sprint(host.ID), "--yes")

	w.change("c", "outbound", "add", "--node", "c", "--tag", "away", "--outbound", file("away.json", `{"protocol":"blackhole"}`))
	w.change("c", "outbound", "add", "--node", "c", "--tag", "away", "--outbound", file("else.json", `{"protocol":"blackhole","settings":{"response":{"type":"http"}}}`))
	w.change("c", "routing", "add", "strict", "--node", "c", "--block-private=false", "--block-ip", "192.0.2.0/24",
		"--rules", file("rules.json", `[{"type":"field","domain":["full:nowhere.example"],"outboundTag":"away"}]`),
		"--dns", file("dns.json", `{"servers":["localhost"]}`), "--policy", file("policy.json", `{"levels":{"0":{"connIdle":400}}}`))
	w.change("c", "routing", "edit", "strict", "--block-domain", "full:bad.example")
	w.change("c", "routing", "edit", "strict", "--dns", file("dns2.json", `{"servers":["127.0.0.53"]}`), "--policy", file("policy2.json", `{"levels":{"0":{"connIdle":500}}}`))
	w.change("b", "node", "edit", "b", "--routing", "")
	w.change("b", "node", "edit", "b", "--routing", "default")
	w.change("c", "node", "edit", "c", "--routing", "default")
	w.change("", "routing", "remove", "strict", "--yes")
	w.change("c", "outbound", "edit", "away", "--node", "c", "--enabled=false")
	w.change("c", "outbound", "remove", "away", "--node", "c", "--yes")

	w.edit("node", "edit", "c", "--region", "x", "--multiplier", "1.5", "--budget", "2TiB", "--budget-day", "1", "--address", "127.0.0.1", "--note", "x")
	w.edit("node", "rotate", "c")
	must(w.t, w.core.Synced(w.ctx, "c"))
	w.serves("a node has another multiplier, budget, address and key")
}

// All nouns are added, edited, disabled, rotated and removed on three nodes while clients are
// connected. Nobody is cut whom the edit is not about, and only the nodes concerned get another
// revision.
func TestEditsCutNobodyElse(t *testing.T) {
	t.Parallel()
	w := newThreeNodes(t)
	w.edit("group", "add", "first", "--node", "node")
	w.edit("group", "add", "rest", "--node", "b", "--protocol", "c/second")
	alice, bob, carol := w.add("alice"), w.add("bob", "--group", "first", "--limit-ips", "3", "--limit", "10GiB"), w.add("carol", "--group", "rest")
	for want, sub := range map[string]Subscription{"node-main b-main c-main c-second": alice, "node-main": bob, "b-main c-second": carol} {
		if got := places(sub); got != want {
			t.Errorf("subscription %d has links to %q, want %q", sub.ID, got, want)
		}
	}
	for _, place := range []string{"node-main", "b-main", "c-main"} {
		w.witnesses["alice on "+place] = w.connect(w.clientOf(alice, place))
	}
	atBob := w.clientOf(bob, "node-main")
	ofBob, ofCarol := w.connect(atBob), w.connect(w.clientOf(carol, "b-main"))

	w.change("", "subscription", "edit", fmt.Sprint(bob.ID), "--limit", "20GiB", "--note", "x")
	w.change("node", "subscription", "edit", fmt.Sprint(bob.ID), "--limit-connections", "50")
	w.change("", "user", "edit", "bob", "--name", "robert", "--contact", "email=b@example.com")
	w.change("node", "subscription", "rotate", fmt.Sprint(bob.ID), "--yes")
	w.isCut("rotate", ofBob)
	must(t, w.core.Do(w.ctx, &bob, "subscription", "show", fmt.Sprint(bob.ID)))
	ofBob = w.connect(w.clientOf(bob, "node-main"))

	w.witnesses["bob"] = ofBob
	w.change("b c", "user", "disable", "carol")
	w.isCut("disable a user", ofCarol)
	w.change("b c", "user", "enable", "carol")
	ofCarol = w.connect(w.clientOf(carol, "b-main"))
	w.change("b", "group", "edit", "rest", "--remove-node", "b")
	w.isCut("a group leaves a node", ofCarol)
	ofCarol = w.connect(w.clientOf(carol, "c-second"))
	w.witnesses["carol"] = ofCarol

	w.change("", "protocol", "edit", "b/main", "--public-host", "127.0.0.2", "--note", "x")
	w.change("c", "group", "edit", "rest", "--protocol", "c/main")
	delete(w.witnesses, "carol")
	w.change("c", "protocol", "edit", "c/second", "--enabled=false")
	w.isCut("disable an inbound", ofCarol)
	w.change("c", "protocol", "edit", "c/second", "--port", w.port(), "--enabled")
	must(t, w.core.Do(w.ctx, &carol, "subscription", "show", fmt.Sprint(carol.ID)))
	ofCarol = w.connect(w.clientOf(carol, "c-second"))

	w.witnesses["carol"] = ofCarol
	w.changeOtherNouns()
	delete(w.witnesses, "carol")

	ofAlice := w.witnesses["alice on b-main"]
	delete(w.witnesses, "alice on b-main")
	w.change("b", "node", "edit", "b", "--enabled=false")
	w.isCut("disable a node", ofAlice)
	w.change("b", "node", "edit", "b", "--enabled", "--tag", "fast")

	delete(w.witnesses, "bob")
	w.edit("subscription", "edit", fmt.Sprint(bob.ID), "--expires", time.Now().Add(3*time.Second).UTC().Format(time.RFC3339))
	w.isCut("expire", ofBob)
	w.serves("a subscription has expired")

	w.change("c", "subscription", "remove", fmt.Sprint(carol.ID))
	w.isCut("remove", ofCarol)
	w.change("", "user", "erase", "carol", "--yes")
	w.edit("group", "remove", "rest")
	// An edit of the template is about everybody on it, on the nodes that do not differ in that.
	w.change("", "protocol", "edit", "main", "--port", w.port())
	w.edit("protocol", "show", "main")
}
