package xray_test

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/grant"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// bounded is a state in which alice has these bounds.
func (r *rig) bounded(more string, limits state.Limits, g *grant.Grant) state.State {
	r.t.Helper()
	s := r.state(`,"outbounds":[{"tag":"direct","protocol":"freedom"}]`+more, aliceID, bobID)
	alice := clientOf(s, aliceID)
	alice.Limits, alice.Grant, alice.Group = limits, g, parse.GroupOf(alice.Key)
	return s
}

func clientOf(s state.State, key string) *state.Client {
	for _, c := range s.Inbounds["in-1"].Clients {
		if c.Key == key {
			return c
		}
	}
	return nil
}

// from opens a connection of alice from an address, and uses it once.
func (r *rig) from(address string) (net.Conn, error) {
	conn, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"vless","sendThrough":%q,"settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]}}`, address, r.port, aliceID))
	if err != nil {
		return nil, err
	}
	if err := use(conn); err != nil {
		return nil, err
	}
	return conn, nil
}

func (r *rig) mustFrom(what, address string) net.Conn {
	r.t.Helper()
	var conn net.Conn
	r.eventually(what, func() (is bool) {
		var err error
		conn, err = r.from(address)
		return err == nil
	})
	return conn
}

// takeOver lets another worker take over, and returns the process that drains.
func (r *rig) takeOver(limits state.Limits, g *grant.Grant) (old int) {
	r.t.Helper()
	old = r.engine.Status().PID
	r.apply(r.bounded(observed, limits, g))
	if s := r.engine.Status(); s.PID == old || s.Draining != 1 {
		r.t.Fatalf("status %+v, want a worker that drains beside another one", s)
	}
	return old
}

// While one worker drains, what it serves counts for the limits in the other one: connections, and the
// addresses that they come from. What ends there makes room, also where the worker is killed.
func TestLimitsOverTwoWorkers(t *testing.T) {
	for name, end := range map[string]func(r *rig, first net.Conn, old int){
		"the connection ends":  func(_ *rig, first net.Conn, _ int) { _ = first.Close() },
		"the worker is killed": func(_ *rig, _ net.Conn, old int) { _ = syscall.Kill(old, syscall.SIGKILL) },
	} {
		t.Run("connections, "+name, func(t *testing.T) {
			r, limits := newRig(t), state.Limits{Connections: 2}
			r.apply(r.bounded("", limits, nil))
			first := r.mustFrom("a first connection", "127.0.0.1")
			old := r.takeOver(limits, nil)
			r.mustFrom("a second connection, through the other worker", "127.0.0.1")
			if _, err := r.from("127.0.0.1"); err == nil {
				t.Error("a third connection was let in")
			}
			if err := use(first); err != nil {
				t.Errorf("the first connection: %v", err)
			}
			end(r, first, old)
			r.mustFrom("another connection after the end of the first", "127.0.0.1")
		})
		t.Run("addresses, "+name, func(t *testing.T) {
			r, limits := newRig(t), state.Limits{IPs: 1}
			r.apply(r.bounded("", limits, nil))
			first := r.mustFrom("a first connection", "127.0.0.1")
			old := r.takeOver(limits, nil)
			if _, err := r.from("127.0.0.2"); err == nil {
				t.Error("a second address was let in")
			}
			second := r.mustFrom("the first address, through the other worker", "127.0.0.1")
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
			end(r, first, old)
			r.mustFrom("another address after the end of the first", "127.0.0.2")
		})
	}
}

// A grant is counted over both workers, and ends the streams of both.
func TestGrantOverTwoWorkers(t *testing.T) {
	r := newRig(t)
	if err := r.counters.Grow(10); err != nil {
		t.Fatal(err)
	}
	g := &grant.Grant{ID: "a", Bytes: 1 << 40, Until: 1 << 40, Slot: 9, ExpiresAt: time.Now().Add(time.Hour)}
	r.apply(r.bounded("", state.Limits{}, g))
	first := r.mustFrom("a connection through the old worker", "127.0.0.1")
	old := r.takeOver(state.Limits{}, g)
	second := r.mustFrom("a connection through the new worker", "127.0.0.1")
	before, _ := r.counters.Read(9)
	for _, conn := range []net.Conn{first, second} {
		if err := use(conn); err != nil {
			t.Fatal(err)
		}
	}
	used, _ := r.counters.Read(9)
	if want := before * 2; used != want { // each connection was used twice
		t.Errorf("%d bytes are counted for the grant, want %d", used, want)
	}
	less := *g
	less.Bytes, less.Until = int64(used)+1, int64(used)+1
	r.apply(r.bounded(observed, state.Limits{}, &less))
	if _, err := first.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{first, second} {
		r.cut(conn)
	}
	if _, err := r.from("127.0.0.1"); err == nil {
		t.Error("a connection was let in after the end of the grant")
	}
	if err := syscall.Kill(old, 0); err != nil && !os.IsPermission(err) {
		t.Logf("the old worker has ended with its last stream: %v", err)
	}
}
