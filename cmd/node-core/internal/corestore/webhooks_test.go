package corestore

import (
	"database/sql"
	"testing"
	"time"

	"nodeagent/coreapi"
)

// After tries have failed for longer than the patience, only events that are older are given up: an
// event that comes later is tried for as long as any other.
func TestOnlyOldEventsAreGivenUp(t *testing.T) {
	const patience = time.Hour
	l := newLimited(t, "2027-03-01T20:00:00Z")
	hook, err := l.AddWebhook(t.Context(), "https://shop.example", []coreapi.EventKind{coreapi.EventNodeOffline}, []byte("key"))
	l.must(err)
	happen := func(kind coreapi.EventKind) {
		l.must(l.inTransaction(t.Context(), func(tx *sql.Tx) error {
			return l.event(t.Context(), tx, Event{Kind: kind, At: l.clock()}, struct{}{})
		}))
	}
	fail := func(want int64) {
		t.Helper()
		d, err := l.NextDelivery(t.Context(), hook.ID)
		l.must(err)
		if d.Event == nil {
			t.Fatal("no event waits")
		}
		now := l.clock()
		if givenUp, err := l.NotDelivered(t.Context(), hook.ID, d.Position, "503", now, now, patience); err != nil || givenUp != want {
			t.Errorf("%d events were given up (%v), want %d", givenUp, err, want)
		}
	}
	state := func(want string) {
		t.Helper()
		w, err := webhook(t.Context(), l.read, hook.ID)
		l.must(err)
		if w.State != want {
			t.Errorf("the webhook is %s, want %s", w.State, want)
		}
	}
	happen(coreapi.EventNodeOffline)
	happen(coreapi.EventNodeOffline)
	fail(0)
	l.pass(patience / 2)
	happen(coreapi.EventNodeOnline) // nobody waits for it
	l.pass(patience/2 - time.Minute)
	happen(coreapi.EventNodeOffline)
	fail(0)
	state("retrying")
	l.pass(time.Minute)
	fail(2)
	state("failing")
	for range 3 { // tries of the event that is a minute old
		fail(0)
	}
	l.pass(patience - time.Minute)
	fail(1)
	// Where nothing has failed for so long, the age of an event alone does not give it up.
	happen(coreapi.EventNodeOffline)
	d, err := l.NextDelivery(t.Context(), hook.ID)
	l.must(err)
	l.must(l.Delivered(t.Context(), hook.ID, d.Position, d.Event.ID))
	happen(coreapi.EventNodeOffline)
	l.pass(2 * patience)
	fail(0)
	state("retrying")
}

// The count of the events that wait for a webhook looks at a bounded number of events, and says so where
// there are more.
func TestWaitingIsBounded(t *testing.T) {
	l := newLimited(t, "2027-03-01T20:00:00Z")
	_, err := l.AddWebhook(t.Context(), "https://shop.example", []coreapi.EventKind{coreapi.EventNodeOffline}, []byte("key"))
	l.must(err)
	happen := func(n int, kind coreapi.EventKind) {
		l.must(l.inTransaction(t.Context(), func(tx *sql.Tx) error {
			for range n {
				if err := l.event(t.Context(), tx, Event{Kind: kind, At: l.clock()}, nil); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	waits := func(want int64, more bool) {
		t.Helper()
		hooks, err := l.Webhooks(t.Context())
		l.must(err)
		if h := hooks[0]; h.Waiting != want || h.WaitingMore != more || (h.OldestAt != nil) != (want > 0) {
			t.Errorf("%d events wait, more: %t, the oldest of %v; want %d, %t", h.Waiting, h.WaitingMore, h.OldestAt, want, more)
		}
	}
	waits(0, false)
	happen(3, coreapi.EventNodeOffline)
	happen(mostWaiting-3, coreapi.EventNodeOnline)
	waits(3, false)
	happen(1, coreapi.EventNodeOffline)
	waits(3, true)
}
