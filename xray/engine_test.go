package xray_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/testfiles"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// A change that xray-core can't make lets a new worker take over. A client that stays keeps its
// connection in the old worker. A client that is removed is cut there, also later.
func TestANewWorkerTakesOver(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", aliceID, bobID))
	first := r.engine.Status().PID
	alice, bob := r.dial(aliceID), r.dial(bobID)
	r.apply(r.state(`,"observatory":{"subjectSelector":["direct"],"probeInterval":"1h"}`, bobID))
	status := r.engine.Status()
	if status.PID == first || status.Draining != 1 || !strings.Contains(status.LastRestart, "observatory") {
		t.Errorf("status %+v", status)
	}
	r.cut(alice)
	r.eventually("alice's slot is closed", r.slotClosed(1))
	if err := use(bob); err != nil {
		t.Errorf("bob's connection: %v", err)
	}
	if err := use(r.dial(bobID)); err != nil {
		t.Errorf("a new connection of bob's: %v", err)
	}
	if _, err := r.tryDial(aliceID); err == nil {
		t.Error("alice could return")
	}
	// Another change, and then bob goes: he is in the oldest worker too.
	r.apply(r.state(`,"observatory":{"subjectSelector":["direct"],"probeInterval":"2h"}`, bobID))
	r.apply(r.state(`,"observatory":{"subjectSelector":["direct"],"probeInterval":"2h"}`))
	r.cut(bob)
	r.eventually("bob's slot is closed", r.slotClosed(2))
	r.eventually("the old workers end", func() bool { return r.engine.Status().Draining == 0 })
}

// A policy is taken, with its statistics left to the dispatcher.
func TestPolicyIsServed(t *testing.T) {
	r := newRig(t)
	r.apply(r.state(`,"policy":{"levels":{"0":{"handshake":3,"statsUserUplink":true}},"system":{"statsInboundUplink":true}}`, bobID))
	bob := r.dial(bobID)
	if up, down := r.counters.Read(2); up == 0 || up != down {
		t.Errorf("counted %d up and %d down", up, down)
	}
	// It changes while the worker runs, and so does the DNS, which routing asks too.
	pid := r.engine.Status().PID
	for _, more := range []string{
		`,"policy":{"levels":{"0":{"handshake":5}}},"dns":{"hosts":{"a.test":"127.0.0.1"}},"routing":{"domainStrategy":"IPOnDemand","rules":[{"ip":["192.0.2.1"],"outboundTag":"direct"}]}`,
		`,"dns":{"servers":["localhost"]}`, ``,
	} {
		r.apply(r.state(more, bobID))
		if err := use(bob); err != nil {
			t.Errorf("with %s: %v", more, err)
		}
		r.dial(bobID)
	}
	if r.engine.Status().PID != pid {
		t.Error("the worker was replaced for a policy or a DNS")
	}
	if err := r.engine.Apply(t.Context(), r.state(`,"dns":{"servers":[{"address":"1.2.3.4","port":"none"}]}`, bobID)); err == nil {
		t.Error("a DNS that can't be built was taken")
	}
	if err := use(bob); err != nil {
		t.Error(err)
	}
}

// sendSignal signals a worker. No pid would be this process's whole group.
func sendSignal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("the worker has the pid %d", pid)
	}
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// A worker that is killed is replaced with the same state, within a second.
func TestAKilledWorkerIsReplaced(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", bobID))
	first := r.engine.Status().PID
	sendSignal(t, first, syscall.SIGKILL)
	r.replaced(first, promised)
	r.dial(bobID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) != 1 || !r.failed[0].Crash {
		t.Errorf("told failures %+v", r.failed)
	}
}

// A worker that dies while another configuration is checked does not wait for the check.
func TestACheckHoldsUpNoWorker(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", bobID))
	first := r.engine.Status().PID
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), []byte(stalledCheck))
	applied := make(chan error, 1)
	go func() {
		applied <- r.engine.Apply(t.Context(), r.state(`,"policy":{"levels":{"0":{"handshake":3}}}`, bobID))
	}()
	r.eventually("the check stands", func() bool { return len(children(t, os.Getpid())) > 1 })
	sendSignal(t, first, syscall.SIGKILL)
	if err := <-applied; err == nil || !strings.Contains(err.Error(), "ended meanwhile") {
		t.Errorf("got %v", err)
	}
	r.replaced(first, promised)
	r.dial(bobID)
}

// The report of a panic has Go's words and the callers, and no secrets.
func TestAPanicIsTold(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", bobID))
	first := r.engine.Status().PID
	sendSignal(t, first, syscall.SIGUSR1)
	r.replaced(first, promised)
	r.dial(bobID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) != 1 || !r.failed[0].Crash || !r.failed[0].Suspect {
		t.Fatalf("told failures %+v", r.failed)
	}
	said := r.failed[0].Message
	for _, word := range []string{"panic: a test wants it", "TestMain.func1 (xray/rig_test.go:"} {
		if !strings.Contains(said, word) {
			t.Errorf("the failure does not say %q: %s", word, said)
		}
	}
	if strings.Contains(said, aliceID) {
		t.Errorf("the failure tells a secret: %s", said)
	}
}

// A worker that hangs is found out and replaced: one with a processor to spare before
// the time is over that a crowd's has to answer, and also in the middle of a change.
func TestAHangingWorkerIsReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		signal syscall.Signal
		change bool
		reason string
		within time.Duration
	}{
		"stopped":             {syscall.SIGSTOP, false, "it has an unused processor", promised},
		"stopped in a change": {syscall.SIGSTOP, true, "it has an unused processor", promised},
		"spins":               {syscall.SIGUSR2, false, "it has an unused processor", promised},
		"has a crowd":         {syscall.SIGHUP, false, "no answer within", 30*time.Second + promised},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(r.state("", bobID))
			first, began := r.engine.Status().PID, time.Now()
			sendSignal(t, first, c.signal)
			if c.change {
				r.eventually("it stands", func() bool { return standsStill(t, first) })
				if err := r.engine.Apply(t.Context(), r.state("", aliceID, bobID)); err == nil {
					t.Error("a change was done by a worker that hangs")
				}
			}
			r.replaced(first, c.within)
			t.Logf("another worker serves after %s", time.Since(began))
			r.dial(bobID)
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.failed) != 1 || !r.failed[0].Crash || !r.failed[0].Suspect || r.failed[0].Changing != c.change || !strings.Contains(r.failed[0].Message, c.reason) {
				t.Errorf("told failures %+v, want one that says %q", r.failed, c.reason)
			}
		})
	}
}

// A change that can't be made whole leaves everybody as he was: also the one
// whom it would have removed.
func TestAFailedChangeTouchesNobody(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", aliceID, bobID))
	alice, bob := r.dial(aliceID), r.dial(bobID)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	second := r.state("", bobID)
	other, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"z-2","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none"}}]}`,
		busy.Addr().(*net.TCPAddr).Port)), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	second.Inbounds["z-2"] = other.Inbounds["z-2"]
	if err := r.engine.Apply(t.Context(), second); err == nil || !strings.Contains(err.Error(), "held by another process") {
		t.Fatalf("apply gave %v", err)
	}
	for name, conn := range map[string]net.Conn{"alice": alice, "bob": bob} {
		if err := use(conn); err != nil {
			t.Errorf("%s's connection: %v", name, err)
		}
	}
	r.dial(aliceID)
}

// An inbound that can't be restored is reported and left out. The rest serves, and the inbound comes
// back when it can.
func TestRestoreServesWhatItCan(t *testing.T) {
	r := newRig(t)
	busy, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(r.port)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Restore(t.Context(), r.state("", bobID)); err == nil {
		t.Fatal("restored on a port that is held")
	}
	if s := r.engine.Status(); s.State != "running" || len(s.Inbounds) != 1 || s.Inbounds[0].State != "failed" {
		t.Errorf("status %+v", s)
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	r.eventually("the inbound runs", func() bool { s := r.engine.Status(); return s.Inbounds[0].State == "running" })
	r.dial(bobID)
}

// The slot of a client whose inbound never came up is closed with it.
func TestSlotsOfAFailedInboundAreClosed(t *testing.T) {
	r := newRig(t)
	busy, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(r.port)))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := r.engine.Restore(t.Context(), r.state("", bobID)); err == nil {
		t.Fatal("restored on a port that is held")
	}
	none := r.state("")
	delete(none.Inbounds, "in-1")
	r.apply(none)
	r.eventually("bob's slot is closed", r.slotClosed(2))
}

// Each outbound counts its own: what goes straight out, what goes through a
// chain under both its legs, and what is blocked under none of them.
func TestOutboundsCountTheirOwn(t *testing.T) {
	r := newRig(t)
	s := r.state(fmt.Sprintf(`,"outbounds":[{"tag":"direct","protocol":"freedom"},
		{"tag":"chained","protocol":"freedom","streamSettings":{"sockopt":{"dialerProxy":"direct"}}},{"tag":"blocked","protocol":"blackhole"}],
		"routing":{"rules":[{"user":["nobody"],"outboundTag":"blocked"},{"user":[%q],"outboundTag":"chained"}]}`, bobID), aliceID, bobID)
	slots := map[string]uint32{"direct": 10, "chained": 11, "blocked": 12}
	for i := range s.Outbounds {
		s.Outbounds[i].Slot = slots[s.Outbounds[i].Tag]
	}
	r.apply(s)
	word := uint64(len("there and back"))
	want := func(slot uint32, n uint64) {
		t.Helper()
		r.eventually(fmt.Sprintf("slot %d has %d words", slot, n), func() bool {
			up, down := r.counters.Read(slot)
			return up == n*word && down == n*word
		})
	}
	r.dial(aliceID)
	want(1, 1)
	want(10, 1)
	want(11, 0)
	r.dial(bobID)
	want(2, 1)
	want(11, 1)
	want(10, 2) // the chain's last leg
	want(12, 0)
}

// withLimits is a state in which bob has limits.
func (r *rig) withLimits(limits state.Limits) state.State {
	s := r.state("", bobID)
	bob := s.Inbounds["in-1"].Clients[0]
	bob.Limits, bob.Group = limits, "bob"
	return s
}

// A limit holds back what comes, and changing it cuts nobody.
func TestLimits(t *testing.T) {
	r := newRig(t)
	r.apply(r.withLimits(state.Limits{Connections: 1}))
	first := r.dial(bobID)
	if _, err := r.tryDial(bobID); err == nil {
		t.Error("a second connection was let in")
	}
	pid := r.engine.Status().PID
	r.apply(r.withLimits(state.Limits{Connections: 2}))
	second := r.dial(bobID)
	if _, err := r.tryDial(bobID); err == nil {
		t.Error("a third connection was let in")
	}
	r.eventually("the refusals are counted", func() bool { return r.engine.Status().Refused == ipc.Refused{Connections: 2} })
	r.eventually("they are in the debug log", func() bool {
		told := r.log.records(t, "streams are refused")
		return len(told) > 0 && told[len(told)-1]["level"] == "DEBUG" && told[len(told)-1]["at_connection_limit"] == 2.0
	})
	r.apply(r.withLimits(state.Limits{RateDownBitsPerSecond: 8 << 20}))
	for name, conn := range map[string]net.Conn{"first": first, "second": second} {
		if err := use(conn); err != nil {
			t.Errorf("the %s connection: %v", name, err)
		}
	}
	// Limits that go and come reach the connections that are open.
	r.apply(r.state("", bobID))
	if err := echo(second, 1<<20); err != nil {
		t.Error(err)
	}
	r.dial(bobID)
	r.apply(r.withLimits(state.Limits{Connections: 3}))
	if _, err := r.tryDial(bobID); err == nil {
		t.Error("a fourth connection was let in")
	}
	r.apply(r.withLimits(state.Limits{RateDownBitsPerSecond: 8 << 20}))
	if r.engine.Status().PID != pid {
		t.Error("the worker was replaced for limits")
	}
	// Three times what may pass in a second, less the burst of a tenth, takes
	// two seconds at the least.
	began := time.Now()
	if err := echo(first, 3<<20); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("3 MiB came in %s at 1 MiB a second", took)
	}
}

// echo sends n bytes and reads them back.
func echo(conn net.Conn, n int) error {
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, n))
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, conn, int64(n)); err != nil {
		return err
	}
	return <-sent
}

// Balancers choose among the outbounds, with an observatory where they ask one, and
// are replaced live.
func TestBalancersAreServed(t *testing.T) {
	r := newRig(t)
	const outbounds = `,"outbounds":[{"tag":"block","protocol":"blackhole"},{"tag":"way-1","protocol":"freedom"},{"tag":"way-2","protocol":"freedom"}]`
	balancer := func(strategy string) string {
		return `,"routing":{"balancers":[{"tag":"b","selector":["way-"],"fallbackTag":"way-1","strategy":{"type":"` + strategy + `"}}],"rules":[{"network":"tcp","balancerTag":"b"}]}`
	}
	r.apply(r.state(outbounds+balancer("random"), bobID))
	conn, pid := r.dial(bobID), r.engine.Status().PID
	r.apply(r.state(outbounds+balancer("roundRobin"), bobID))
	r.dial(bobID)
	if r.engine.Status().PID != pid {
		t.Error("the worker was replaced for a balancer")
	}
	// Nothing answers the probes here: the fallback is taken.
	r.apply(r.state(outbounds+balancer("leastPing")+`,"observatory":{"subjectSelector":["way-"],"probeURL":"http://127.0.0.1:1/","probeInterval":"1h"}`, bobID))
	r.dial(bobID)
	if err := use(conn); err != nil {
		t.Error(err)
	}
}
