package telemt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/namespace"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// Two inbounds share users: every byte is counted once, for the right inbound,
// and who is there is told with the address.
func TestServesAndCounts(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		first, second := r.port(), r.port()
		r.apply(r.service(inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("alice"))))
		alice, bob, other := r.dial(first, "alice"), r.dial(first, "bob"), r.dial(second, "alice")
		r.eventually("alice is told online", func() bool { return r.visits(slot(1, "alice")) == "+127.0.0.1" })
		r.exchange(alice, 60_003, 50_029)
		r.exchange(bob, 11, 60_001)
		r.exchange(other, 50_009, 13)
		r.wantCounted(slot(1, "alice"), 2, 60_004, 50_030)
		r.wantCounted(slot(1, "bob"), 2, 12, 60_002)
		r.wantCounted(slot(2, "alice"), 2, 50_010, 14)
		_ = alice.Close()
		r.eventually("alice is told offline", func() bool { return r.visits(slot(1, "alice")) == "+127.0.0.1 -127.0.0.1" })
		if in := r.inbound("mtproto-1"); in.State != StateReady || in.Clients != 2 || in.PID == 0 {
			t.Errorf("status %+v", in)
		}
		r.exchange(bob, 5, 7)
		r.stop() // reads a last time
		r.wantCounted(slot(1, "bob"), 3, 17, 60_009)
	})
}

// Users come and go live: who goes is cut, nobody else is.
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
			t.Error("the removed user could return")
		}
		r.exchange(stays, 1000, 1000)
		r.dial(port, "comes")
		r.eventually("the slot of who left is closed", func() bool { return r.isClosed(slot(1, "goes")) })
		r.wantCounted(slot(1, "goes"), 2, 101, 201)
		r.apply(r.service(inbound(1, port, "", client("stays"), client("goes"))))
		r.dial(port, "goes")
		r.exchange(stays, 1000, 1000)
		r.wantCounted(slot(1, "goes"), 3, 102, 202)
		if r.inbound("mtproto-1").PID != pid {
			t.Error("telemt was started anew for a change of users")
		}
	})
}

// Another secret cuts the sessions of the old one, and nobody else's.
func TestRotation(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("stays"), client("turns"))))
		stays, turns := r.dial(port, "stays"), r.dial(port, "turns")
		r.apply(r.service(inbound(1, port, "", client("stays"), clientVersion("turns", 2))))
		r.cut(turns, time.Second)
		if _, err := r.tryDial(port, secretOf("turns", 1)); err == nil {
			t.Error("the old secret lets in")
		}
		if _, err := r.tryDial(port, secretOf("turns", 2)); err != nil {
			t.Errorf("the new secret does not let in: %v", err)
		}
		r.apply(r.service(inbound(1, port, "", client("stays", `"expiresAt":"2001-01-01T00:00:00Z"`), clientVersion("turns", 2))))
		r.cut(stays, time.Second)
		if _, err := r.tryDial(port, secretOf("stays", 1)); err == nil {
			t.Error("an expired user is let in")
		}
	})
}

// What telemt can't take while it runs: sessions go on for the drain's time.
func TestReloadDrains(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
		pid := r.inbound("mtproto-1").PID
		before := r.dial(port, "alice")
		r.exchange(before, 1000, 2000)
		r.apply(r.service(inbound(1, port, `"tlsDomains":["other.example"]`, client("alice"), client("bob"))))
		if r.inbound("mtproto-1").PID != pid {
			t.Error("telemt was restarted, though it can reload")
		}
		r.exchange(before, 1, 1) // drains; counted by nobody, which the documents say
		after := r.dial(port, "bob")
		r.exchange(after, 100, 100)
		r.wantCounted(slot(1, "alice"), 2, 1001, 2001)
		r.wantCounted(slot(1, "bob"), 2, 101, 101)
		r.cut(before, patience)
		r.exchange(after, 1, 1)
		r.wantCounted(slot(1, "bob"), 3, 102, 102)
	})
}

// A release that can't reload is restarted, alone.
func TestOldReleaseIsRestarted(t *testing.T) {
	for name, faults := range map[string]string{"can't": "version=3.4.20", "does not bring it up": "fail_reload=true"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, double(t, faults))
			port, otherPort := r.port(), r.port()
			r.apply(r.service(inbound(1, port, "", client("alice")), inbound(2, otherPort, "", client("alice"))))
			pid := r.inbound("mtproto-1").PID
			alice, other := r.dial(port, "alice"), r.dial(otherPort, "alice")
			r.exchange(alice, 1000, 2000)
			r.apply(r.service(inbound(1, port, `"tlsDomains":["other.example"]`, client("alice")), inbound(2, otherPort, `"tlsDomains":["other.example"]`, client("alice"))))
			if r.inbound("mtproto-1").PID == pid {
				t.Error("telemt was not restarted")
			}
			r.cut(other, patience)
			r.dial(port, "alice")
			r.wantCounted(slot(1, "alice"), 3, 1002, 2002)
		})
	}
}

// A listener moves: its inbound restarts, the other one notices nothing. Two
// inbounds may swap their ports.
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
		// One leaves, another takes its port in the same change.
		r.apply(r.service(inbound(3, second, "", client("alice")), inbound(1, third, "", client("alice"))))
		r.cut(other, patience)
		r.dial(second, "alice")
		r.wantCounted(slot(3, "alice"), 1, 1, 1)
		r.eventually("the slot of the inbound that is gone is closed", func() bool { return r.isClosed(slot(2, "alice")) })
		if _, err := os.Stat(string(process.FolderOf(r.state, "mtproto-2"))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder of the inbound that is gone: %v", err)
		}
	})
}

// What telemt refuses is told in its words, and what ran goes on, on every
// inbound of the change.
func TestRefusalRollsBack(t *testing.T) {
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
			t.Error("a user of the refused configuration is let in")
		}
		r.apply(r.service(inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("alice"))))
		r.dial(first, "bob")
		r.exchange(alice, 10, 10)
		// The same clients: telemt sees the key at the reload alone.
		pid := r.inbound("mtproto-1").PID
		err = r.engine.Apply(t.Context(), r.serviceWith(`,"bogus":{"key":1}`, inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("alice"))))
		if err == nil || !strings.Contains(err.Error(), "bogus") || r.inbound("mtproto-1").PID != pid {
			t.Fatalf("got %v, and process %d is now %d", err, pid, r.inbound("mtproto-1").PID)
		}
		r.exchange(alice, 10, 10)
	})
}

// Two changes that need a reload, the second while the first one drains: what moves
// in between is counted, also of one who comes with the second.
func TestReloadAfterReload(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary, func(c *Config) { c.DrainTimeout = 2 * time.Second })
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
		old := r.dial(port, "bob") // makes the drain last
		r.apply(r.service(inbound(1, port, `"tlsDomains":["one.example"]`, client("alice"), client("bob"))))
		applied := make(chan error, 1)
		go func() {
			applied <- r.engine.Apply(t.Context(), r.service(inbound(1, port, `"tlsDomains":["two.example"]`, client("alice"), client("bob"), client("carol"))))
		}()
		alice := r.dial(port, "alice")
		r.exchange(alice, 50_000, 40_000)
		var carol net.Conn
		r.eventually("carol is let in", func() (is bool) { carol, is = r.tries(port, "carol"); return is })
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

// An inbound that fails holds up nobody: not the change of another one, and not
// the way back.
func TestFailingInboundHoldsUpNobody(t *testing.T) {
	binary := double(t)
	r := newRig(t, binary, func(c *Config) { c.StartTimeout = 5 * time.Second })
	first, second := r.port(), r.port()
	r.apply(r.service(inbound(1, first, "", client("alice"), client("bob")), inbound(2, second, "", client("alice"))))
	bob := r.dial(first, "bob")
	install(t, binary, "start_delay=1h") // no telemt comes up from now on
	r.signal(r.inbound("mtproto-2").PID, syscall.SIGKILL)
	r.eventually("the second one fails", func() bool { return r.inbound("mtproto-2").State == StateFailed && r.failedWith(service.FailureApply) })
	r.apply(r.service(inbound(1, first, "", client("alice")), inbound(2, second, "", client("alice"))))
	r.cut(bob, time.Second)
	r.apply(r.service(inbound(1, first, "", client("alice")), inbound(2, second, "", client("carol"))))
	// A change that is refused leaves it as it was: to be tried again.
	if err := r.engine.Apply(t.Context(), r.service(inbound(1, first, "", client("alice")), inbound(3, r.port(), "", client("alice")))); err == nil {
		t.Fatal("an inbound that does not come up was added")
	}
	install(t, binary)
	r.eventually("the second one serves again", func() bool { return r.inbound("mtproto-2").State == StateReady })
	r.dial(second, "carol")
	if status := r.engine.Status(); len(status.Inbounds) != 2 {
		t.Errorf("status %+v", status)
	}
}

// An Apply that is given up in the middle ends soon and changes nothing.
func TestApplyIsGivenUp(t *testing.T) {
	binary := double(t)
	r := newRig(t, binary, func(c *Config) { c.StartTimeout = 5 * time.Second })
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	install(t, binary, "start_delay=1h", "version=3.4.20")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := r.engine.Apply(ctx, r.service(inbound(1, r.port(), "", client("alice")))); err == nil {
		t.Fatal("an apply that was given up was done")
	}
	install(t, binary)
	r.eventually("what was good serves again", func() bool { return r.inbound("mtproto-1").State == StateReady })
	r.dial(port, "alice")
}

// One inbound's failure takes the whole change back, also what was removed.
func TestPortInUse(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		busy, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer busy.Close()
		first, taken := r.port(), busy.Addr().(*net.TCPAddr).Port
		r.apply(r.service(inbound(1, first, "", client("alice"))))
		alice := r.dial(first, "alice")
		err = r.engine.Apply(t.Context(), r.service(inbound(2, taken, "", client("alice"))))
		refusal, is := errors.AsType[*service.ApplyError](err)
		if !is || refusal.Code != service.FailurePortInUse || refusal.Tag != "mtproto-2" || int(refusal.Port) != taken {
			t.Fatalf("got %v, want that port %d of mtproto-2 is in use", err, taken)
		}
		r.exchange(alice, 10, 10)
		if status := r.engine.Status(); len(status.Inbounds) != 1 {
			t.Errorf("status %+v", status)
		}
	})
}

// A port that telemt did not bind is found, whatever it says.
func TestDeafTelemtIsFound(t *testing.T) {
	r := newRig(t, double(t, "deaf=true"))
	err := r.engine.Apply(t.Context(), r.service(inbound(1, r.port(), "", client("alice"))))
	if err == nil || !strings.Contains(err.Error(), "does not listen") {
		t.Fatalf("got %v", err)
	}
}

// Without a telemt that could be run its inbounds fail, alone; as soon as there
// is one they serve.
func TestMissingTelemt(t *testing.T) {
	notTelemt := filepath.Join(t.TempDir(), "true")
	if err := os.WriteFile(notTelemt, []byte("#!/bin/sh\necho hello\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ binary, says string }{
		"not there":   {filepath.Join(t.TempDir(), "telemt"), "install"},
		"too old":     {double(t, "version=3.4.13"), "3.4.13"},
		"not telemt":  {notTelemt, "not telemt"},
		"not in PATH": {"telemt-that-nobody-has", "install"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.binary)
			port := r.port()
			r.apply(r.service(inbound(1, port, "", client("alice"))))
			if !r.failedWith(service.FailureMissing) || !strings.Contains(r.failures[0].Message, c.says) {
				t.Fatalf("failures %+v, want one that says %q", r.failures, c.says)
			}
			if in := r.inbound("mtproto-1"); in.State != StateFailed || !strings.Contains(in.Error, c.says) {
				t.Errorf("status %+v", in)
			}
			if !filepath.IsAbs(c.binary) {
				return
			}
			double(t) // builds it
			install(t, c.binary)
			r.eventually("it serves once telemt is there", func() bool { return r.inbound("mtproto-1").State == StateReady })
			r.dial(port, "alice")
		})
	}
}

// A package upgrade is restarted into when nobody is there, or after a while.
func TestReplacedTelemt(t *testing.T) {
	for name, within := range map[string]time.Duration{"nobody there": time.Hour, "after a while": 500 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			binary := double(t)
			r := newRig(t, binary, func(c *Config) { c.UpgradeWithin = within })
			port := r.port()
			r.apply(r.service(inbound(1, port, "", client("alice"))))
			alice := r.dial(port, "alice")
			r.exchange(alice, 1000, 2000)
			r.eventually("alice is seen", func() bool { return r.visits(slot(1, "alice")) != "" })
			install(t, binary, "version=3.5.1")
			if within == time.Hour {
				for range 50 { // it is noticed, and waits
					r.engine.Collect(t.Context())
				}
				r.exchange(alice, 10, 10)
				if r.inbound("mtproto-1").Version != "3.4.25" {
					t.Fatal("it did not wait for alice")
				}
				r.wantCounted(slot(1, "alice"), 3, 1011, 2011)
				_ = alice.Close()
			}
			r.eventually("the new one serves", func() bool { return r.inbound("mtproto-1").Version == "3.5.1" })
			r.dial(port, "alice") // whose counters have other names
			if within == time.Hour {
				r.wantCounted(slot(1, "alice"), 4, 1012, 2012)
			} else {
				r.wantCounted(slot(1, "alice"), 3, 1002, 2002)
			}
		})
	}
}

// telemt is killed in the middle of traffic: what was read stays counted, it
// serves again, and what it counts from zero is not taken for a fall.
func TestCrash(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		alice := r.dial(port, "alice")
		r.exchange(alice, 40_000, 60_000)
		r.wantCounted(slot(1, "alice"), 2, 40_001, 60_001)
		pid := r.inbound("mtproto-1").PID
		r.signal(pid, syscall.SIGKILL)
		r.cut(alice, patience)
		r.eventually("it serves again", func() bool {
			in := r.inbound("mtproto-1")
			return in.State == StateReady && in.PID != pid && in.Restarts == 1
		})
		if !r.failedWith(service.FailureCrash) {
			t.Errorf("failures %+v", r.failures)
		}
		again := r.dial(port, "alice")
		r.exchange(again, 50_000, 30_000)
		r.wantCounted(slot(1, "alice"), 4, 90_002, 90_002)
		r.eventually("offline and online are told", func() bool {
			return r.visits(slot(1, "alice")) == "+127.0.0.1 -127.0.0.1 +127.0.0.1"
		})
	})
}

func TestSlowTelemt(t *testing.T) {
	r := newRig(t, double(t, "start_delay=1500ms", "api_delay=100ms"))
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	r.dial(port, "alice")
	r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
	r.dial(port, "bob")
	// One that never comes up is given up, and told.
	never := newRig(t, double(t, "start_delay=1h"), func(c *Config) { c.StartTimeout = 300 * time.Millisecond })
	err := never.engine.Apply(t.Context(), never.service(inbound(1, never.port(), "", client("alice"))))
	if err == nil || !strings.Contains(err.Error(), "does not come up") {
		t.Fatalf("got %v", err)
	}
}

// An edit that telemt swallowed is written again.
func TestLostEdit(t *testing.T) {
	r := newRig(t, double(t, "lose_edits=1"))
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
	r.dial(port, "bob")
}

// A live change that telemt refuses.
func TestRefusedEdit(t *testing.T) {
	r := newRig(t, double(t, "refuse_edits=true"))
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	alice := r.dial(port, "alice")
	err := r.engine.Apply(t.Context(), r.service(inbound(1, port, "", client("alice"), client("bob"))))
	if err == nil || !strings.Contains(err.Error(), "the double takes no edits") {
		t.Fatalf("got %v, want telemt's own words", err)
	}
	r.exchange(alice, 10, 10)
}

// The file is edited by hand: it is written again and said, and whom it let in
// has to go.
func TestDrift(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		alice := r.dial(port, "alice")
		file := process.FolderOf(r.state, "mtproto-1").Config()
		config, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		edited := strings.Replace(string(config), "[access.users]\n", fmt.Sprintf("[access.users]\nstranger = '%x'\n", secretOf("stranger", 1)), 1)
		if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
		r.eventually("the stranger is out again", func() bool {
			now, err := os.ReadFile(file)
			return err == nil && !strings.Contains(string(now), "stranger = '")
		})
		r.eventually("it is said", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.noted) > 0 })
		r.eventually("the stranger is not let in", func() bool { _, err := r.tryDial(port, secretOf("stranger", 1)); return err != nil })
		r.exchange(alice, 10, 10)
		r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
		r.dial(port, "bob")
		r.exchange(alice, 10, 10)
	})
}

func TestDegraded(t *testing.T) {
	r := newRig(t, double(t, "unreachable=true"))
	r.apply(r.service(inbound(1, r.port(), "", client("alice"))))
	r.eventually("it is degraded", func() bool { return r.inbound("mtproto-1").State == StateDegraded })
	if len(r.failures) > 0 {
		t.Errorf("failures %+v: degraded is none", r.failures)
	}
}

// At boot what can't be served is told and tried again; the rest serves.
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
		r.eventually("the one serves, the other is told", func() bool {
			return r.inbound("mtproto-1").State == StateReady && r.failedWith(service.FailurePortInUse)
		})
		r.dial(first, "alice")
		// A later change must not be held up by the one that fails.
		r.apply(r.service(inbound(1, first, "", client("alice"), client("bob")), inbound(2, taken, "", client("alice"), client("bob"))))
		r.dial(first, "bob")
		_ = busy.Close()
		r.eventually("it serves once the port is free", func() bool { return r.inbound("mtproto-2").State == StateReady })
		r.dial(taken, "bob")
	})
}

// A thousand users, a hundred changes: nobody else is dropped.
func TestManyChanges(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		const users, changes, live = 1000, 100, 20
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

// A node without any route out: the inbound whose way out is loopback serves, one
// that telemt can't start without a route fails alone, and says so.
func TestNoRouteOut(t *testing.T) {
	if !namespace.Inside(t, "true") {
		return
	}
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		first := r.port()
		serves := r.service(inbound(1, first, "", client("alice")))
		r.apply(serves)
		r.dial(first, "alice")
		if os.Getenv("TELEMT_BIN") != binary {
			return // the double needs no route
		}
		routed := r.service(inbound(2, r.port(), "", client("alice")))
		routed.Upstreams = nil
		err := r.engine.Apply(t.Context(), routed)
		if err == nil || !strings.Contains(err.Error(), "No listeners") {
			t.Errorf("got %v, want telemt's words for a host without a route", err)
		}
		r.dial(first, "alice")
	})
}
