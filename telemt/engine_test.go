package telemt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// Two inbounds share users. Every byte is counted once, for the right inbound, and each
// client's presence is reported with its address.
func TestServesAndCounts(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		first, second := r.port(), r.port()
		r.apply(r.service(inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("alice"))))
		alice, bob, other := r.dial(first, "alice"), r.dial(first, "bob"), r.dial(second, "alice")
		r.eventually("alice is reported online", func() bool { return r.presenceOf(slot(1, "alice")) == "+127.0.0.1" })
		r.exchange(alice, 60_003, 50_029)
		r.exchange(bob, 11, 60_001)
		r.exchange(other, 50_009, 13)
		r.wantCounted(slot(1, "alice"), 2, 60_004, 50_030)
		r.wantCounted(slot(1, "bob"), 2, 12, 60_002)
		r.wantCounted(slot(2, "alice"), 2, 50_010, 14)
		_ = alice.Close()
		r.eventually("alice is reported offline", func() bool { return r.presenceOf(slot(1, "alice")) == "+127.0.0.1 -127.0.0.1" })
		if in := r.inbound("mtproto-1"); in.State != StateReady || in.Clients != 2 || in.PID == 0 {
			t.Errorf("status %+v", in)
		}
		r.exchange(bob, 5, 7)
		r.stop() // reads the counters a last time
		r.wantCounted(slot(1, "bob"), 3, 17, 60_009)
	})
}

// Users are added and removed while telemt runs. Only the sessions of removed users end.
func TestUsersComeAndGo(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("stays"), client("goes"))))
		pid := r.inbound("mtproto-1").PID
		stays, goes := r.dial(port, "stays"), r.dial(port, "goes")
		r.exchange(goes, 100, 200)
		r.apply(r.service(inbound(1, port, "", client("stays", `"limitConnections":9`), client("comes"))))
		r.cut(goes, time.Second)
		if _, err := r.tryDial(port, secretOf("goes", 1)); err == nil {
			t.Error("the removed user can connect")
		}
		r.exchange(stays, 1000, 1000)
		r.dial(port, "comes")
		r.eventually("the slot of the removed user is closed", func() bool { return r.isClosed(slot(1, "goes")) })
		r.wantCounted(slot(1, "goes"), 2, 101, 201)
		r.apply(r.service(inbound(1, port, "", client("stays"), client("goes"))))
		r.dial(port, "goes")
		r.exchange(stays, 1000, 1000)
		r.wantCounted(slot(1, "goes"), 3, 102, 202)
		if r.inbound("mtproto-1").PID != pid {
			t.Error("telemt was restarted for a change of users")
		}
	})
}

// A new secret, or an expiry that has passed, ends the sessions of its user, and no others.
func TestRotation(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("stays"), client("turns"))))
		stays, turns := r.dial(port, "stays"), r.dial(port, "turns")
		r.apply(r.service(inbound(1, port, "", client("stays"), clientVersion("turns", 2))))
		r.cut(turns, time.Second)
		if _, err := r.tryDial(port, secretOf("turns", 1)); err == nil {
			t.Error("the old secret is accepted")
		}
		if _, err := r.tryDial(port, secretOf("turns", 2)); err != nil {
			t.Errorf("the new secret is rejected: %v", err)
		}
		r.apply(r.service(inbound(1, port, "", client("stays", `"expiresAt":"2001-01-01T00:00:00Z"`), clientVersion("turns", 2))))
		r.cut(stays, time.Second)
		if _, err := r.tryDial(port, secretOf("stays", 1)); err == nil {
			t.Error("an expired user can connect")
		}
	})
}

// An inbound gets another port: it is restarted, the other inbound is not touched. Then
// a new inbound takes the port of a removed one.
func TestListenerMoves(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		first, second, third := r.port(), r.port(), r.port()
		r.apply(r.service(inbound(1, first, "", client("alice")), inbound(2, second, "", client("alice"))))
		alice, other := r.dial(first, "alice"), r.dial(second, "alice")
		r.exchange(alice, 10, 10)
		r.apply(r.service(inbound(1, third, "", client("alice")), inbound(2, second, "", client("alice"))))
		r.cut(alice, patience)
		r.dial(third, "alice")
		r.exchange(other, 1000, 1000)
		r.wantCounted(slot(1, "alice"), 3, 12, 12)
		r.apply(r.service(inbound(3, second, "", client("alice")), inbound(1, third, "", client("alice"))))
		r.cut(other, patience)
		r.dial(second, "alice")
		r.wantCounted(slot(3, "alice"), 1, 1, 1)
		r.eventually("the slot of the removed inbound is closed", func() bool { return r.isClosed(slot(2, "alice")) })
		if _, err := os.Stat(string(process.FolderOf(r.state, "mtproto-2"))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder of the removed inbound: %v", err)
		}
	})
}

// When telemt rejects a change, the error has telemt's words, and every inbound of the
// change goes on as before.
func TestRejectionRollsBack(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		first, second := r.port(), r.port()
		good := r.service(inbound(1, first, "", client("alice")), inbound(2, second, "", client("alice")))
		r.apply(good)
		alice, other := r.dial(first, "alice"), r.dial(second, "alice")
		bad := r.serviceWith(`,"bogus":{"key":1}`, inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("bob")))
		err := r.engine.Apply(t.Context(), bad)
		refusal, is := errors.AsType[*service.ApplyError](err)
		if !is || !strings.Contains(refusal.Message, "unknown config keys") || !strings.Contains(refusal.Message, "bogus") {
			t.Fatalf("got %v, want telemt's own words about bogus", err)
		}
		r.exchange(alice, 10, 10)
		r.exchange(other, 10, 10)
		r.dial(first, "alice")
		if _, err := r.tryDial(first, secretOf("bob", 1)); err == nil {
			t.Error("a user of the rejected configuration can connect")
		}
		r.apply(r.service(inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("alice"))))
		r.dial(first, "bob")
		r.exchange(alice, 10, 10)
		// With the same clients telemt sees the wrong key only at the reload.
		pid := r.inbound("mtproto-1").PID
		err = r.engine.Apply(t.Context(), r.serviceWith(`,"bogus":{"key":1}`, inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("alice"))))
		if err == nil || !strings.Contains(err.Error(), "bogus") || r.inbound("mtproto-1").PID != pid {
			t.Fatalf("got %v, and process %d is now %d", err, pid, r.inbound("mtproto-1").PID)
		}
		r.exchange(alice, 10, 10)
	})
}

// A second reload begins while the first one drains. What moves in between is counted,
// also that of a user whom the second change adds.
func TestReloadAfterReload(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary, func(c *Config) { c.DrainTimeout = 2 * time.Second })
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
		old := r.dial(port, "bob") // keeps the first generation draining
		r.apply(r.service(inbound(1, port, `"tlsDomains":["one.example"]`, client("alice"), client("bob"))))
		applied := make(chan error, 1)
		go func() {
			applied <- r.engine.Apply(t.Context(), r.service(inbound(1, port, `"tlsDomains":["two.example"]`, client("alice"), client("bob"), client("carol"))))
		}()
		alice := r.dial(port, "alice")
		r.exchange(alice, 50_000, 40_000)
		var carol net.Conn
		r.eventually("carol can connect", func() (is bool) { carol, is = r.tries(port, "carol"); return is })
		r.exchange(carol, 40_000, 50_000)
		if err := <-applied; err != nil {
			t.Fatal(err)
		}
		r.wantCounted(slot(1, "alice"), 2, 50_001, 40_001)
		r.wantCounted(slot(1, "carol"), 2, 40_001, 50_001)
		_ = old.Close()
	})
}

// Two inbounds swap their ports.
func TestPortsAreSwapped(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		first, second := r.port(), r.port()
		r.apply(r.service(inbound(1, first, "", client("alice")), inbound(2, second, "", client("bob"))))
		r.apply(r.service(inbound(1, second, "", client("alice")), inbound(2, first, "", client("bob"))))
		r.dial(second, "alice")
		r.dial(first, "bob")
	})
}

// An inbound that fails delays neither a change of another inbound nor the way back.
func TestFailingInboundDelaysNoOther(t *testing.T) {
	binary := double(t)
	r := newRig(t, binary, func(c *Config) { c.StartTimeout = 5 * time.Second })
	first, second := r.port(), r.port()
	r.apply(r.service(inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("alice"))))
	bob := r.dial(first, "bob")
	install(t, binary, "start_delay=1h") // no telemt comes up from now on
	r.signal(r.inbound("mtproto-2").PID, syscall.SIGKILL)
	r.eventually("the second inbound fails", func() bool { return r.inbound("mtproto-2").State == StateFailed && r.failedWith(service.FailureApply) })
	r.apply(r.service(inbound(1, first, "", client("alice")), inbound(2, second, "", client("alice"))))
	r.cut(bob, time.Second)
	r.apply(r.service(inbound(1, first, "", client("alice")), inbound(2, second, "", client("carol"))))
	// A change that is rolled back leaves it waiting for its next try.
	if err := r.engine.Apply(t.Context(), r.service(inbound(1, first, "", client("alice")), inbound(3, r.port(), "", client("alice")))); err == nil {
		t.Fatal("an inbound that does not come up was added")
	}
	install(t, binary)
	r.eventually("the second inbound serves again", func() bool { return r.inbound("mtproto-2").State == StateReady })
	r.dial(second, "carol")
	if status := r.engine.Status(); len(status.Inbounds) != 2 {
		t.Errorf("status %+v", status)
	}
}

// An Apply whose context ends returns soon and changes nothing.
func TestApplyIsCancelled(t *testing.T) {
	binary := double(t)
	r := newRig(t, binary, func(c *Config) { c.StartTimeout = 5 * time.Second })
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	install(t, binary, "start_delay=1h", "version=3.4.20")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := r.engine.Apply(ctx, r.service(inbound(1, r.port(), "", client("alice")))); err == nil {
		t.Fatal("an Apply whose context has ended succeeded")
	}
	install(t, binary)
	// A telemt that was found while the other file was in place is restarted once more.
	r.eventually("the inbound of before serves again", func() bool { _, served := r.tries(port, "alice"); return served })
}

// Another path in the configuration is as an upgrade: no daemon restarts for it.
func TestTunedToAnotherTelemt(t *testing.T) {
	binary := double(t)
	r := newRig(t, binary, func(c *Config) { c.UpgradeWithin = time.Hour })
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	r.exchange(r.dial(port, "alice"), 10, 10)
	other := double(t)
	install(t, other, "version=3.5.1")
	r.engine.Tune(Config{Binary: other, UpgradeWithin: time.Millisecond})
	r.eventually("the other telemt serves", func() bool { return r.inbound("mtproto-1").Version == "3.5.1" })
	r.exchange(r.dial(port, "alice"), 10, 10)
}

// Without a usable telemt the inbounds fail, and Apply does not. They serve as soon as a
// After a package upgrade telemt is restarted when no session is open, or when
// UpgradeWithin is over.
func TestUpgradedTelemt(t *testing.T) {
	for name, within := range map[string]time.Duration{"no session": time.Hour, "over": 500 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			binary := double(t)
			r := newRig(t, binary, func(c *Config) { c.UpgradeWithin = within })
			port := r.port()
			r.apply(r.service(inbound(1, port, "", client("alice"))))
			alice := r.dial(port, "alice")
			r.exchange(alice, 1000, 2000)
			r.eventually("alice is online", func() bool { return r.presenceOf(slot(1, "alice")) != "" })
			install(t, binary, "version=3.5.1")
			if within == time.Hour {
				for range 50 { // the upgrade is noticed, and waits
					r.engine.Collect(t.Context())
				}
				r.exchange(alice, 10, 10)
				if r.inbound("mtproto-1").Version != "3.4.25" {
					t.Fatal("it did not wait for alice's session")
				}
				r.wantCounted(slot(1, "alice"), 3, 1011, 2011)
				_ = alice.Close()
			}
			r.eventually("the new telemt serves", func() bool { return r.inbound("mtproto-1").Version == "3.5.1" })
			r.dial(port, "alice") // in this release the counters have other names
			if within == time.Hour {
				r.wantCounted(slot(1, "alice"), 4, 1012, 2012)
			} else {
				r.wantCounted(slot(1, "alice"), 3, 1002, 2002)
			}
		})
	}
}

// telemt is killed during traffic. What was read stays counted, it serves again, and its
// The file is edited by hand. It is written again, that is reported, and the sessions of
// After a restore an inbound that can't be served is reported and tried again, and the
// others serve.
func TestRestoreServesWhatItCan(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		busy, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		first, taken := r.port(), busy.Addr().(*net.TCPAddr).Port
		if err := r.engine.Restore(t.Context(), r.service(inbound(1, first, "", client("alice")), inbound(2, taken, "", client("alice")))); err != nil {
			t.Fatal(err)
		}
		r.eventually("the first serves, the second is reported", func() bool {
			return r.inbound("mtproto-1").State == StateReady && r.failedWith(service.FailurePortInUse)
		})
		r.dial(first, "alice")
		// A later change is not delayed by the inbound that fails.
		r.apply(r.service(inbound(1, first, "", client("alice"), client("bob")), inbound(2, taken, "", client("alice"), client("bob"))))
		r.dial(first, "bob")
		_ = busy.Close()
		r.eventually("it serves once the port is free", func() bool { return r.inbound("mtproto-2").State == StateReady })
		r.dial(taken, "bob")
	})
}

// With a thousand users, a hundred changes end no session of another user.
func TestManyChanges(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		const users, changes, live = 1000, 40, 20
		r := newRig(t, binary)
		port := r.port()
		var clients []string
		for i := range users {
			clients = append(clients, client(fmt.Sprint("user-", i)))
		}
		r.apply(r.service(inbound(1, port, "", clients...)))
		var conns []net.Conn
		for i := range live {
			conns = append(conns, r.dial(port, fmt.Sprint("user-", i)))
		}
		for i := range changes {
			clients[users-1-i] = client(fmt.Sprint("new-", i))
			r.apply(r.service(inbound(1, port, "", clients...)))
			r.exchange(conns[i%live], 1000, 1000)
		}
		for i, conn := range conns {
			r.exchange(conn, 1, 1)
			r.wantCounted(slot(1, fmt.Sprint("user-", i)), 2+changes/live, 2+1000*changes/live, 2+1000*changes/live)
		}
	})
}

// On a host without a route, an inbound with an upstream on loopback serves. One without
