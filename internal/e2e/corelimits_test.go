package e2e

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// status waits until Core says so of a subscription.
func (w *world) status(id int64, want string) {
	w.t.Helper()
	must(w.t, Within(w.ctx, 3*Patience, func() error {
		var s struct{ Status string }
		if err := w.core.Do(w.ctx, &s, "subscription", "show", fmt.Sprint(id)); err != nil {
			return err
		}
		if s.Status != want {
			return fmt.Errorf("subscription %d is %s, want %s", id, s.Status, want)
		}
		return nil
	}))
}

// A client that has used up its limit is cut, by Core's word alone. It is let in again after a top-up,
// and when its count begins anew. Another client of the node notices nothing, and the bytes that were
// moved are the bytes that are counted.
func TestLimitsCutClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.protocol("--security", "none")
	limited, other := w.subscriber("alice"), w.subscriber("bob")
	w.start()
	target := w.target()
	bob := w.dial(w.linkClient(other.Links[0]), target)
	defer bob.Close()
	alice := w.linkClient(limited.Links[0])
	const limit = 4 << 20
	edit := func(args ...string) {
		t.Helper()
		var answer any
		must(t, w.core.Do(w.ctx, &answer, append([]string{"subscription"}, append(args, "--wait")...)...))
	}
	edit("edit", fmt.Sprint(limited.ID), "--limit", fmt.Sprint(limit))

	var received atomic.Int64
	useUp := func() {
		t.Helper()
		conn := w.dial(alice, target)
		defer conn.Close()
		must(t, Exchange(countedConn{conn, &received}, 0, limit+1000)) // nobody is cut before a row says so
		ended := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, conn) // the connection is cut
			close(ended)
		}()
		w.status(limited.ID, "limited")
		select {
		case <-ended:
		case <-t.Context().Done():
			t.Fatal("the connection of a limited client did not end")
		}
		must(t, Eventually(w.ctx, func() error {
			if conn, err := alice.Dial(target.Addr()); err == nil {
				defer conn.Close()
				if err := Exchange(conn, 1, 1); err == nil {
					return fmt.Errorf("a limited client is let in")
				}
			}
			return nil
		}))
		must(t, Exchange(bob, 1000, 1000))
	}
	letIn := func() {
		t.Helper()
		w.status(limited.ID, "active")
		must(t, Eventually(w.ctx, func() error {
			conn, err := alice.Dial(target.Addr())
			if err != nil {
				return err
			}
			defer conn.Close()
			return Exchange(countedConn{conn, &received}, 0, 1000)
		}))
		must(t, Exchange(bob, 1000, 1000))
	}
	useUp()
	edit("top-up", fmt.Sprint(limited.ID), "1MiB")
	letIn()
	edit("edit", fmt.Sprint(limited.ID), "--limit", fmt.Sprint(limit/4)) // rows that come late fit in after the reset
	w.status(limited.ID, "limited")
	edit("reset", fmt.Sprint(limited.ID))
	letIn()
}

var _ net.Conn = countedConn{}
