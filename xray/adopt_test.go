package xray_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/counters"
	"nodeagent/internal/supervise"
	"nodeagent/internal/testfiles"
	"nodeagent/xray/ipc"
	"nodeagent/xray/xraytest"
)

// newRigThatIsLeft has workers that outlive their engine.
func newRigThatIsLeft(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.config.OrphanTimeout = time.Hour
	// failing would take events of the worker after the end of an engine, and lose them.
	r.config.Worker.Env = slices.DeleteFunc(r.config.Worker.Env, func(v string) bool { return strings.HasPrefix(v, failEnv) })
	r.end(nil)
	r.run()
	return r
}

// again ends the engine and leaves its workers to another one.
func (r *rig) again() {
	r.t.Helper()
	r.end(supervise.ErrLeave)
	r.run()
}

func (r *rig) restore(more string, ids ...string) {
	r.t.Helper()
	if err := r.engine.Restore(r.t.Context(), r.state(more, ids...)); err != nil {
		r.t.Fatal(err)
	}
}

// The next engine goes on with the worker and its clients. What differs in the state that it
// restores is changed, and no more than that.
func TestAdoption(t *testing.T) {
	r := newRigThatIsLeft(t)
	r.apply(r.state("", aliceID, bobID))
	alice, bob := r.dial(aliceID), r.dial(bobID)
	pid := r.engine.Status().PID
	r.end(supervise.ErrLeave)
	if err := errors.Join(use(alice), use(bob)); err != nil {
		t.Fatalf("without an engine: %v", err)
	}
	// Events wait in the worker meanwhile: bob comes a second time, and alice goes.
	second := r.dial(bobID)
	_ = alice.Close()
	r.within(promised, "bob is served", func() bool { return use(second) == nil })
	r.run()
	if r.adopted.Workers != 1 || r.engine.Status().PID != pid {
		t.Fatalf("%d workers were adopted, and %d runs; want %d", r.adopted.Workers, r.engine.Status().PID, pid)
	}
	slotOf := func(all []ipc.Presence) (slots []uint32) {
		for _, p := range all {
			slots = append(slots, p.Slot)
		}
		return slots
	}
	if got := slotOf(r.adopted.Online); !slices.Contains(got, 2) {
		t.Errorf("online are the slots %d, want bob's", got)
	}
	r.restore("", bobID, carolID)
	if status := r.engine.Status(); status.PID != pid || status.AdoptedAt.IsZero() || status.Restarts != 0 {
		t.Errorf("the status is %+v", status)
	}
	if err := errors.Join(use(bob), use(second)); err != nil {
		t.Errorf("bob, who stays, was cut: %v", err)
	}
	r.dial(carolID)
	if _, err := r.tryDial(aliceID); err == nil {
		t.Error("alice, who was removed, is served")
	}
	r.eventually("alice's slot is closed", r.slotClosed(1))
	r.again()
	r.restore("", bobID, carolID)
	if err := use(bob); err != nil {
		t.Errorf("bob was cut at the second adoption: %v", err)
	}
}

// The next engine reports who came and went while no engine ran, in the order of time, and once.
func TestPresenceWaits(t *testing.T) {
	r := newRigThatIsLeft(t)
	r.apply(r.state("", aliceID, bobID))
	alice := r.dial(aliceID)
	r.eventually("the engine has heard of alice", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.presence) == 1 })
	r.end(supervise.ErrLeave)
	before, heard := time.Now(), len(r.presence)
	var seen []ipc.Presence
	bob := r.dial(bobID)
	_, _ = alice.Close(), bob.Close()
	r.within(promised, "both are gone", func() bool {
		r.run()
		gone := len(r.adopted.Online) == 0
		seen = append(seen, r.adopted.Events...)
		if !gone {
			r.end(supervise.ErrLeave)
		}
		return gone
	})
	r.mu.Lock()
	seen = append(seen, r.presence[heard:]...) // by an engine that adopted before the last of them
	r.mu.Unlock()
	var told []string
	for _, p := range seen {
		told = append(told, map[uint32]string{1: "alice", 2: "bob"}[p.Slot]+map[bool]string{true: " comes", false: " goes"}[p.Online])
		if p.At.Before(before.Add(-time.Second)) {
			t.Errorf("%+v is older than the end of the engine", p)
		}
	}
	slices.Sort(told)
	if want := []string{"alice goes", "bob comes", "bob goes"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// A worker that is none of this node, or that counts elsewhere, is ended and not adopted.
func TestStrangersAreNotAdopted(t *testing.T) {
	for name, change := range map[string]func(*rig){
		"another secret": func(r *rig) { r.config.Secret = []byte("another one") },
		"other counters": func(r *rig) {
			file, err := counters.Create(r.config.CountersPath)
			if err != nil {
				r.t.Fatal(err)
			}
			r.counters = file
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRigThatIsLeft(t)
			r.apply(r.state("", bobID))
			bob := r.dial(bobID)
			r.end(supervise.ErrLeave)
			change(r)
			r.run()
			if r.adopted.Workers != 0 {
				t.Fatal("the worker was adopted")
			}
			r.cut(bob)
			if l, err := net.Listen("tcp", r.address()); err != nil {
				t.Errorf("the worker still listens: %v", err)
			} else {
				_ = l.Close()
			}
			r.restore("", bobID)
			r.dial(bobID)
		})
	}
}

// A worker that nobody adopts serves for its time, and then ends with its last stream.
func TestAnOrphanEnds(t *testing.T) {
	r := newRigThatIsLeft(t)
	r.config.OrphanTimeout = time.Second
	r.end(nil)
	r.run()
	r.apply(r.state("", bobID))
	bob := r.dial(bobID)
	r.end(supervise.ErrLeave)
	r.eventually("it takes no new connections", func() bool {
		conn, err := net.Dial("tcp", r.address())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	if err := use(bob); err != nil {
		t.Errorf("bob was cut with the listeners: %v", err)
	}
	_ = bob.Close()
	r.eventually("it has ended", func() bool {
		r.run()
		defer r.end(supervise.ErrLeave)
		return r.adopted.Workers == 0
	})
	r.run()
}

// A worker that drains goes on draining under the next engine, which ends the streams of removed
// clients there too.
func TestDrainingWorkerIsAdopted(t *testing.T) {
	r := newRigThatIsLeft(t)
	r.apply(r.state("", aliceID, bobID))
	alice, bob := r.dial(aliceID), r.dial(bobID)
	r.apply(r.state(observed, aliceID, bobID))
	r.again()
	if r.adopted.Workers != 2 {
		t.Fatalf("%d workers were adopted, want 2", r.adopted.Workers)
	}
	r.restore(observed, bobID)
	r.cut(alice)
	if err := use(bob); err != nil {
		t.Errorf("bob was cut: %v", err)
	}
	r.eventually("alice's slot is closed", r.slotClosed(1))
	if n := r.engine.Status().Draining; n != 1 {
		t.Errorf("%d workers drain, want 1", n)
	}
	_ = bob.Close()
	r.eventually("the old worker ends", func() bool { return r.engine.Status().Draining == 0 })
}

// A worker that crashed while no engine ran is reported, with the words of its panic.
func TestCrashWithoutAnEngine(t *testing.T) {
	r := newRigThatIsLeft(t)
	r.apply(r.state("", bobID))
	bob, pid := r.dial(bobID), r.engine.Status().PID
	r.end(supervise.ErrLeave)
	panicWorker(t, pid)
	r.cut(bob)
	r.run()
	r.mu.Lock()
	failed := slices.Clone(r.failed)
	r.mu.Unlock()
	if len(failed) != 1 || !failed[0].Crash || !strings.Contains(failed[0].Message, "a test wants it") || strings.Contains(failed[0].Message, aliceID) {
		t.Fatalf("told %+v", failed)
	}
	r.restore("", bobID)
	r.dial(bobID)
}

// The engine finds out which clients an adopted worker has, where they are not those of the state
// that it restores: thousands of them, in several pages.
func TestAdoptionOfOtherClients(t *testing.T) {
	r := newRigThatIsLeft(t)
	r.apply(r.state("", aliceID, bobID, daveID))
	bob := r.dial(bobID)
	r.again()
	limited := r.state("", bobID, carolID)
	for i := range limited.Inbounds["in-1"].Clients {
		c := limited.Inbounds["in-1"].Clients[i]
		c.Group, c.Limits.Connections = c.Key, 1
	}
	if err := r.engine.Restore(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	if err := use(bob); err != nil {
		t.Errorf("bob was cut: %v", err)
	}
	if _, err := r.tryDial(bobID); err == nil {
		t.Error("bob's new limit does not hold for the adopted worker")
	}
	for _, gone := range []string{aliceID, daveID} {
		if _, err := r.tryDial(gone); err == nil {
			t.Errorf("%s, who was removed, is served", gone)
		}
	}
	r.dial(carolID)
}

// A certificate that is renewed while no engine runs, or before the next one restores anything, is
// used. Nobody is told that it can't be read.
func TestRenewalWithoutAnEngine(t *testing.T) {
	r, dir, port := newRigThatIsLeft(t), t.TempDir(), freePort(t)
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put := func() xraytest.Renewal {
		renewed := xraytest.NewRenewal(t, x509.Certificate{}, nil)
		testfiles.Write(t, certificate, string(renewed.Certificate))
		testfiles.Write(t, key, string(renewed.Key))
		return renewed
	}
	first := put()
	r.apply(r.secured(port, certificate, key, ""))
	awaitHandshake(t, port, "the first", first)
	r.end(supervise.ErrLeave)
	second := put()
	time.Sleep(time.Second) // the worker notices in this time, mostly; nothing says so
	r.run()
	if r.adopted.Workers != 1 {
		t.Fatalf("%d workers were adopted, want 1", r.adopted.Workers)
	}
	awaitHandshake(t, port, "renewed without an engine", second)
	awaitHandshake(t, port, "renewed before the state is restored", put())
	if err := r.engine.Restore(t.Context(), r.secured(port, certificate, key, "")); err != nil {
		t.Fatal(err)
	}
	awaitHandshake(t, port, "renewed afterwards", put())
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) > 0 {
		t.Errorf("told %+v", r.failed)
	}
}

// The daemon leaves in the middle of a change: the worker serves on, whatever of the change it has
// made, and the next daemon makes the rest.
func TestLeavingDuringAChange(t *testing.T) {
	const routed = `,"routing":{"rules":[{"ip":["192.0.2.1"],"outboundTag":"block"}]},"outbounds":[{"tag":"direct","protocol":"freedom"},{"tag":"block","protocol":"blackhole"}]`
	r := newRigThatIsLeft(t)
	r.apply(r.state("", bobID))
	bob, pid := r.dial(bobID), r.engine.Status().PID
	for round := range 10 {
		to := r.state([]string{"", routed}[round%2], bobID, []string{aliceID, carolID}[round%2])
		ctx, cancel := context.WithCancelCause(t.Context())
		answered := make(chan struct{})
		go func() {
			_ = r.engine.Apply(ctx, to)
			close(answered)
		}()
		// Any time is good: the change has not begun, is on its way, or is over.
		time.Sleep(time.Duration(round) * 200 * time.Microsecond)
		cancel(supervise.ErrLeave)
		<-answered
		r.again()
		if now := r.engine.Status().PID; now != pid {
			t.Fatalf("round %d: worker %d runs, before it was %d", round, now, pid)
		}
		if err := use(bob); err != nil {
			t.Fatalf("round %d: bob was cut: %v", round, err)
		}
		if err := r.engine.Restore(t.Context(), to); err != nil {
			t.Fatal(err)
		}
	}
}
