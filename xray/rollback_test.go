package xray_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	xnet "github.com/xtls/xray-core/common/net"

	"nodeagent/internal/fault"
	"nodeagent/internal/testfiles"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
	"nodeagent/xray/worker"
)

// failEnv names a file that says which operations of the worker fail, counted from
// when the file was written: "round number...". Nothing in it fails none; stalledCheck lets
// every dry run stand, endlessDrain lets no drain end by its time, and dies ends the worker
// over the next operation.
const failEnv = "NODE_AGENT_TEST_FAIL"

const (
	stalledCheck = "stall the check"
	endlessDrain = "drain without an end"
	dies         = "die over an operation"
)

const failedByTest = "the test wants this operation to fail"

// failingListener lets failing stand between daemons and a worker.
type failingListener struct {
	worker.Listener
	file string
	hear func()
}

func (l failingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return failing(conn, l.file, l.hear), nil
}

// failing stands between the daemon and a worker, and answers some operations itself.
// It passes nothing on before hear returns.
func failing(daemon net.Conn, file string, hear func()) net.Conn {
	inner, outer := net.Pipe()
	toDaemon, toWorker := ipc.NewFrameConn(daemon), ipc.NewFrameConn(outer)
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
		round, count, isDryRun, requests, operations := "", 0, false, 0, 0
		for {
			var raw json.RawMessage
			var request ipc.Request
			if toDaemon.Read(&raw) != nil || json.Unmarshal(raw, &request) != nil {
				return
			}
			hear()
			isDryRun = isDryRun || request.Boot != nil && request.Boot.DryRun
			text, _ := os.ReadFile(file)
			if isDryRun && string(text) == stalledCheck {
				continue
			}
			if request.Operation != nil && !isDryRun && string(text) == dies {
				os.Exit(3)
			}
			if point, ok := strings.CutPrefix(string(text), killsDaemon); ok && !isDryRun {
				if killed, passes := killDaemonAt(point, request, &requests, &operations, toDaemon); killed {
					if passes {
						_ = toWorker.Write(raw)
					}
					return
				}
			}
			if request.Operation != nil && !isDryRun {
				words := strings.Fields(string(text))
				if len(words) > 0 && words[0] != round {
					round, count = words[0], 0
				}
				if count++; len(words) > 0 && slices.Contains(words[1:], fmt.Sprint(count)) {
					_ = toDaemon.Write(ipc.Message{ID: request.ID, Error: &fault.Fault{Code: fault.ApplyFailed, Tag: request.Operation.Tag, Message: failedByTest}})
					continue
				}
			}
			if request.Drain != nil && string(text) == endlessDrain {
				request.Drain.Timeout = 24 * time.Hour
				raw, _ = json.Marshal(request)
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
// engine sees it. Who may connect is looked at, and what policy, DNS and limits do.
func TestEveryOperationRollsBack(t *testing.T) {
	r := newRig(t)
	b := stateBefore{rig: r, second: freePort(t), third: freePort(t), replaced: freePort(t)}
	kept := func(sniffing bool, clients string) string {
		return fmt.Sprintf(`{"tag":"kept-9","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[%s]},"sniffing":{"enabled":%v}}`, b.replaced, clients, sniffing)
	}
	const leveled = `{"tag":"leveled","protocol":"freedom","settings":{"domainStrategy":"UseIP","userLevel":1}}`
	const levelRule = `{"domain":["full:policy.test"],"outboundTag":"leveled"}`
	clients := `{"id":"` + aliceID + `"},{"id":"` + bobID + `","limitConnections":1},{"id":"` + daveID + `"}`
	before := r.plan(clients, b.second,
		`{"tag":"direct","protocol":"freedom","settings":{"domainStrategy":"UseIP"}},{"tag":"block","protocol":"blackhole"},{"tag":"old","protocol":"freedom"},`+leveled,
		`{"rules":[`+levelRule+`,{"ip":["192.0.2.1"],"outboundTag":"block"}]},"policy":{"levels":{"1":{"connIdle":300}}},"dns":{"hosts":{"dns.test":"127.0.0.1","policy.test":"127.0.0.1"},"servers":["localhost"]}`, "in-2", kept(false, clients))
	clients = `{"id":"` + bobID + `","limitConnections":2},{"id":"` + carolID + `"},{"id":"` + daveID + `","limitConnections":1}`
	after := r.plan(clients, b.third,
		`{"tag":"block","protocol":"blackhole"},{"tag":"direct","protocol":"freedom","settings":{"domainStrategy":"UseIPv4"}},{"tag":"new","protocol":"freedom"},`+leveled,
		`{"rules":[`+levelRule+`,{"ip":["127.0.0.1"],"outboundTag":"block"}]},"policy":{"levels":{"1":{"connIdle":0}}},"dns":{"hosts":{"dns.test":"127.0.0.9","policy.test":"127.0.0.1"},"servers":["localhost"]}`, "in-3", kept(true, clients))
	r.apply(before)
	alice, bob, dave := r.dial(aliceID), r.dial(bobID), r.dial(daveID)
	plan := state.Diff(before, after)
	if len(plan) < 14 || !slices.ContainsFunc(plan, func(op state.Operation) bool { return op.Kind == state.OpReplaceInbound }) {
		t.Fatalf("the plan has %d operations, too few to prove much, or replaces no inbound", len(plan))
	}
	for i, op := range plan {
		t.Run(fmt.Sprintf("%d %s %s", i+1, op.Kind, op.Tag), func(t *testing.T) {
			testfiles.Replace(t, filepath.Join(r.assets, "fail"), fmt.Appendf(nil, "round-%d %d", i, i+1))
			err := r.engine.Apply(t.Context(), after)
			if err == nil || !strings.Contains(err.Error(), failedByTest) {
				t.Fatalf("got %v", err)
			}
			b.runs(t)
			if op.Kind == state.OpSetPolicy || op.Kind == state.OpSetDNS || op.Kind == state.OpPutOutbound || op.Kind == state.OpDefaultOutbound || op.Kind == state.OpSetRouting || op.Kind == state.OpRemoveInbound {
				return // alice was not removed yet
			}
			if use(alice) != nil { // she was, for a moment
				alice = r.dial(aliceID)
			}
		})
		for name, conn := range map[string]net.Conn{"bob": bob, "dave": dave} {
			if err := use(conn); err != nil {
				t.Fatalf("%s, whom the plan keeps, was cut: %v", name, err)
			}
		}
	}
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), nil)
	// The engine finds nothing to do on the way to where it came back to.
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), []byte("none-allowed 1"))
	r.apply(before)
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), nil)
	r.apply(after)
	if _, err := r.tryDial(carolID); err == nil {
		t.Error("the rule of the plan does not hold")
	}
	if err := b.tryName(aliceID, "policy.test"); err == nil {
		t.Error("the policy of the plan does not hold, so that nothing was seen of it before")
	}
}

const (
	carolID = "33333333-3333-4333-8333-333333333333"
	daveID  = "44444444-4444-4444-8444-444444444444"
)

// plan is a state with the clients on the rig's port and on another inbound's, and more
// inbounds.
func (r *rig) plan(clients string, otherPort int, outbounds, routing, otherTag string, more ...string) state.State {
	r.t.Helper()
	inbound := func(tag string, port int) string {
		return fmt.Sprintf(`{"tag":%q,"listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[%s]}}`, tag, port, clients)
	}
	inbounds := strings.Join(append([]string{inbound("in-1", r.port), inbound(otherTag, otherPort)}, more...), ",")
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[%s],"outbounds":[%s],"routing":%s}`, inbounds, outbounds, routing)), func(string) bool { return true })
	if err != nil {
		r.t.Fatal(err)
	}
	for i, tag := range s.Tags() {
		for j := range s.Inbounds[tag].Clients {
			c := s.Inbounds[tag].Clients[j]
			c.Slot = uint32(10*i) + map[string]uint32{aliceID: 1, bobID: 2, carolID: 3, daveID: 4}[c.Key]
		}
	}
	return s
}

// stateBefore is the state that a plan begins with: bob may have one connection, and has it,
// and dave as many as he wants.
type stateBefore struct {
	*rig
	second, third, replaced int
}

// runs checks who can connect where, and by which policy, DNS and limits.
func (b stateBefore) runs(t *testing.T) {
	t.Helper()
	for _, c := range []struct {
		id   string
		port int
		want bool
		why  string
	}{
		{aliceID, b.port, true, ""},
		{aliceID, b.second, true, "her inbound is back"},
		{aliceID, b.replaced, true, "her inbound is back as it was"},
		{carolID, b.port, false, "she is in the new state alone"},
		{carolID, b.replaced, false, "she is in the new state alone"},
		{bobID, b.port, false, "he has the one connection that he may have"},
		{bobID, b.replaced, false, "he has the one connection that he may have"},
		{daveID, b.port, true, "he has a second connection, and no limit"},
		{daveID, b.replaced, true, "he has a second connection, and no limit"},
	} {
		conn, err := b.tryDialPort(c.id, c.port)
		if (err == nil) != c.want {
			t.Errorf("client %s on port %d: %v, want it let in: %v; %s", c.id[:4], c.port, err, c.want, c.why)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.third)); err == nil {
		_ = conn.Close()
		t.Error("the inbound of the new state listens")
	}
	for _, name := range []string{"dns.test", "policy.test"} {
		if err := b.tryName(aliceID, name); err != nil {
			t.Errorf("%s is not as before: %v", name, err)
		}
	}
}

// tryName uses a connection to the echo by a name, which the node resolves.
func (r *rig) tryName(id, name string) error {
	port := xnet.Port(r.echo.Addr().(*net.TCPAddr).Port)
	conn, err := r.dialOutboundTo(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[
		{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]}}`, r.port, id), xnet.TCPDestination(xnet.DomainAddress(name), port))
	if err != nil {
		return err
	}
	defer conn.Close()
	return use(conn)
}

// An inbound that can't be rolled back is named and left out. The rest is as before, and the inbound
// comes back by itself.
func TestAFailedRollbackIsNamed(t *testing.T) {
	r := newRig(t)
	second, third := freePort(t), freePort(t)
	const outbounds = `{"tag":"direct","protocol":"freedom"}`
	before := r.plan(`{"id":"`+aliceID+`"},{"id":"`+bobID+`"}`, second, outbounds, `{}`, "in-2")
	after := r.plan(`{"id":"`+bobID+`"}`, third, outbounds, `{}`, "in-3")
	r.apply(before)
	bob := r.dial(bobID)
	var there []state.OpKind
	for _, op := range state.Diff(before, after) {
		there = append(there, op.Kind)
	}
	if want := []state.OpKind{state.OpRemoveInbound, state.OpRemoveUsers, state.OpAddInbound, state.OpAddUsers}; !slices.Equal(there, want) {
		t.Fatalf("the plan is %v, want %v", there, want)
	}
	// The third fails, and the second one of the way back: in-1's client, then in-2.
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), []byte("there-and-back 3 5"))
	err := r.engine.Apply(t.Context(), after)
	if err == nil || strings.Count(err.Error(), failedByTest) != 2 || !strings.Contains(err.Error(), "roll back: replace_inbound in-2") {
		t.Fatalf("got %v", err)
	}
	states := map[string]string{}
	for _, in := range r.engine.Status().Inbounds {
		states[in.Tag] = in.State
	}
	if want := map[string]string{"in-1": "running", "in-2": "failed"}; !maps.Equal(states, want) {
		t.Errorf("the inbounds are %v, want %v", states, want)
	}
	for port, want := range map[int]bool{r.port: true, second: false, third: false} {
		_, err := r.tryDialPort(aliceID, port)
		if (err == nil) != want {
			t.Errorf("alice on port %d: %v, want her let in: %v", port, err, want)
		}
	}
	if err := use(bob); err != nil {
		t.Errorf("bob's connection: %v", err)
	}
	r.eventually("the inbound is back", func() bool {
		return !slices.ContainsFunc(r.engine.Status().Inbounds, func(in xray.InboundStatus) bool { return in.State != "running" })
	})
	if _, err := r.tryDialPort(aliceID, second); err != nil {
		t.Error(err)
	}
}

// A replacement that fails at its very end, when the listener starts, leaves the
// clients and limits that were: nothing before can find such a fault.
func TestAFailedReplacementLeavesClientsAndLimits(t *testing.T) {
	r := newRig(t)
	// Of a pair with one sign each xray-core's listener makes an error.
	const refused = `,"streamSettings":{"sockopt":{"tcpKeepAliveIdle":-1,"tcpKeepAliveInterval":1}}`
	vless := func(connections int, clients, stream string) state.State {
		s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless",
			"settings":{"decryption":"none","clients":[{"id":%q,"limitConnections":%d}%s]}%s}]}`, r.port, bobID, connections, clients, stream)), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Inbounds["in-1"].Clients {
			c := s.Inbounds["in-1"].Clients[i]
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
