package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nodeagent/xray"
)

// failEnv names a file that says which operation of the worker fails, counted from
// when the file was written: "round number". Nothing in it fails none; stalledCheck lets
// every dry run stand.
const failEnv = "NODE_AGENT_TEST_FAIL"

const stalledCheck = "stall the check"

const failedByTest = "the test wants this operation to fail"

// failing stands between the daemon and a worker, and answers one operation itself.
// It passes nothing on before hear returns.
func failing(daemon net.Conn, file string, hear func()) net.Conn {
	inner, outer := net.Pipe()
	toDaemon, toWorker := xray.NewFrameConn(daemon), xray.NewFrameConn(outer)
	go func() {
		defer outer.Close()
		defer daemon.Close()
		for {
			var m json.RawMessage
			if toWorker.Read(&m) != nil || toDaemon.Write(m) != nil {
				return
			}
		}
	}()
	go func() {
		defer outer.Close()
		round, left, isDryRun := "", 0, false
		for {
			var raw json.RawMessage
			var request xray.Request
			if toDaemon.Read(&raw) != nil || json.Unmarshal(raw, &request) != nil {
				return
			}
			hear()
			isDryRun = isDryRun || request.Boot != nil && request.Boot.DryRun
			text, _ := os.ReadFile(file)
			if isDryRun && string(text) == stalledCheck {
				continue
			}
			if request.Operation != nil && !isDryRun {
				now, number := "", 0
				if _, err := fmt.Sscan(string(text), &now, &number); err == nil && now != round {
					round, left = now, number
				}
				if left--; left == 0 {
					_ = toDaemon.Write(xray.Message{ID: request.ID, Error: &xray.OperationError{Code: xray.FailureOther, Tag: request.Operation.Tag, Message: failedByTest}})
					continue
				}
			}
			if toWorker.Write(raw) != nil {
				return
			}
		}
	}()
	return inner
}

// Each operation of a long plan fails in turn, and every time what ran before runs
// afterwards: for the connections that are open, for those that come, and as the
// engine sees it.
func TestEveryOperationRollsBack(t *testing.T) {
	r := newRig(t)
	second, third := freePort(t), freePort(t)
	before := r.plan(`{"id":"`+aliceID+`"},{"id":"`+bobID+`","limitConnections":50}`, second,
		`{"tag":"direct","protocol":"freedom"},{"tag":"block","protocol":"blackhole"},{"tag":"old","protocol":"freedom"}`,
		`{"rules":[{"ip":["192.0.2.1"],"outboundTag":"block"}]},"policy":{"levels":{"0":{"handshake":5}}},"dns":{"servers":["localhost"]}`, "in-2")
	after := r.plan(`{"id":"`+bobID+`","limitConnections":60},{"id":"`+carolID+`"}`, third,
		`{"tag":"block","protocol":"blackhole"},{"tag":"direct","protocol":"freedom","settings":{"domainStrategy":"UseIP"}},{"tag":"new","protocol":"freedom"}`,
		`{"rules":[{"ip":["127.0.0.1"],"outboundTag":"block"}]},"policy":{"levels":{"0":{"handshake":6}}},"dns":{"hosts":{"x.test":"127.0.0.1"},"servers":["localhost"]}`, "in-3")
	r.apply(before)
	alice, bob := r.dial(aliceID), r.dial(bobID)
	plan := xray.Diff(before, after)
	if len(plan) < 11 {
		t.Fatalf("the plan has %d operations, too few to prove much", len(plan))
	}
	for i, op := range plan {
		t.Run(fmt.Sprintf("%d %s %s", i+1, op.Kind, op.Tag), func(t *testing.T) {
			putFile(t, filepath.Join(r.assets, "fail"), fmt.Appendf(nil, "round-%d %d", i, i+1))
			err := r.engine.Apply(t.Context(), after)
			if err == nil || !strings.Contains(err.Error(), failedByTest) {
				t.Fatalf("got %v", err)
			}
			r.runsBefore(t, second, third)
			if op.Kind == xray.OpSetPolicy || op.Kind == xray.OpSetDNS || op.Kind == xray.OpPutOutbound || op.Kind == xray.OpDefaultOutbound || op.Kind == xray.OpSetRouting || op.Kind == xray.OpRemoveInbound {
				return // alice was not removed yet
			}
			if use(alice) != nil { // she was, for a moment
				alice = r.dial(aliceID)
			}
		})
		if err := use(bob); err != nil {
			t.Fatalf("bob, whom the plan keeps, was cut: %v", err)
		}
	}
	putFile(t, filepath.Join(r.assets, "fail"), nil)
	// The engine finds nothing to do on the way to where it came back to.
	putFile(t, filepath.Join(r.assets, "fail"), []byte("none-allowed 1"))
	r.apply(before)
	putFile(t, filepath.Join(r.assets, "fail"), nil)
	r.apply(after)
	if _, err := r.tryDial(carolID); err == nil {
		t.Error("the rule of the plan does not hold")
	}
}

const carolID = "33333333-3333-4333-8333-333333333333"

// plan is a state with the clients on the rig's port and on another inbound's.
func (r *rig) plan(clients string, otherPort int, outbounds, routing, otherTag string) xray.State {
	r.t.Helper()
	inbound := func(tag string, port int) string {
		return fmt.Sprintf(`{"tag":%q,"listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[%s]}}`, tag, port, clients)
	}
	s, err := xray.Parse(json.RawMessage(fmt.Sprintf(`{"inbounds":[%s,%s],"outbounds":[%s],"routing":%s}`,
		inbound("in-1", r.port), inbound(otherTag, otherPort), outbounds, routing)), func(string) bool { return true })
	if err != nil {
		r.t.Fatal(err)
	}
	for i, tag := range s.Tags() {
		for j := range s.Inbounds[tag].Clients {
			c := &s.Inbounds[tag].Clients[j]
			c.Slot = uint32(10*i) + map[string]uint32{aliceID: 1, bobID: 2, carolID: 3}[c.Key]
		}
	}
	return s
}

// runsBefore checks who can connect where.
func (r *rig) runsBefore(t *testing.T, second, third int) {
	t.Helper()
	for _, c := range []struct {
		id   string
		port int
		want bool
	}{{aliceID, r.port, true}, {bobID, r.port, true}, {carolID, r.port, false}, {aliceID, second, true}, {bobID, third, false}} {
		_, err := r.tryDialPort(c.id, c.port)
		if (err == nil) != c.want {
			t.Errorf("client %s on port %d: %v, want it let in: %v", c.id[:4], c.port, errors.Join(err), c.want)
		}
	}
}

// A replacement that fails at its very end, when the listener starts, leaves the
// clients and limits that were: nothing before can find such a fault.
func TestAFailedReplacementLeavesClientsAndLimits(t *testing.T) {
	r := newRig(t)
	// Of a pair with one sign each xray-core's listener makes an error.
	const refused = `,"streamSettings":{"sockopt":{"tcpKeepAliveIdle":-1,"tcpKeepAliveInterval":1}}`
	vless := func(connections int, clients, stream string) xray.State {
		s, err := xray.Parse(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless",
			"settings":{"decryption":"none","clients":[{"id":%q,"limitConnections":%d}%s]}%s}]}`, r.port, bobID, connections, clients, stream)), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Inbounds["in-1"].Clients {
			c := &s.Inbounds["in-1"].Clients[i]
			c.Slot = map[string]uint32{aliceID: 1, bobID: 2}[c.Key]
			c.Group = "everybody" // alice joins the group that has bob's limits
		}
		return s
	}
	r.apply(vless(2, "", ""))
	bob := r.dial(bobID)
	err := r.engine.Apply(t.Context(), vless(1, `,{"id":"`+aliceID+`","limitConnections":1}`, refused))
	if err == nil || !strings.Contains(err.Error(), "start inbound") {
		t.Fatalf("got %v", err)
	}
	if err := use(bob); err != nil {
		t.Errorf("bob's connection: %v", err)
	}
	r.dial(bobID) // the second that he may have
	if _, err := r.tryDial(bobID); err == nil {
		t.Error("bob could open a third connection")
	}
	if _, err := r.tryDial(aliceID); err == nil {
		t.Error("alice was let in")
	}
}
