package corestore

import (
	"testing"
	"time"
)

// A client that is near its limit and was idle until its grant is over goes on without waiting: the
// grant leaves the node's document at its end.
func TestGrantsLeaveDocumentsAtTheirEnd(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		store, err := Open(t.Context(), t.TempDir())
		grantsLeave(t, store, err)
	})
	t.Run("postgres", func(t *testing.T) {
		store, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
		grantsLeave(t, store, err)
	})
}

func grantsLeave(t *testing.T, store *Store, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	w := &world{t: t, now: time.Date(2030, 3, 10, 21, 0, 0, 0, time.UTC)}
	w.open(store)
	w.addNode("fra1", 1000)
	user, err := store.AddUser(t.Context(), "alice")
	w.must(err)
	sub, _, err := store.InsertSubscription(t.Context(), Subscription{UserID: user.ID, Terms: Terms{LimitBytes: 10_000}})
	w.must(err)
	s := &worldSub{id: sub.ID, user: user.ID, limit: 10_000}
	w.subs = append(w.subs, s)
	w.enforce()
	n := w.nodes[0]
	if moved := w.move(n, s, 9000); moved != 9000 {
		t.Fatalf("%d bytes were moved", moved)
	}
	w.send(n)
	g := n.document[s.id]
	if g == nil {
		t.Fatal("a client near its limit has no grant")
	}
	for w.now.Before(g.ExpiresAt.Add(-10 * time.Second)) {
		w.now = w.now.Add(10 * time.Second)
		w.enforce()
		if now := n.document[s.id]; now != nil {
			g = now
		} else {
			t.Fatalf("the grant left the document at %s, and it ends at %s", w.now, g.ExpiresAt)
		}
	}
	w.now = g.ExpiresAt
	_, next, err := store.enforceOnce(t.Context(), w.now.Add(-time.Millisecond))
	w.must(err)
	if !next.Equal(g.ExpiresAt) {
		t.Errorf("the grant is due at %s, want its end at %s", next, g.ExpiresAt)
	}
	w.enforce()
	w.now = w.now.Add(documentEvery)
	w.enforce()
	if now, served := n.document[s.id]; now != nil || !served {
		t.Errorf("after its end the document has the grant %+v, and the client: %t", now, served)
	}
	if left := w.outstanding(s); left == 0 {
		t.Error("rows of the grant that are late are no more reckoned with")
	}
	w.now = g.ExpiresAt.Add(rowsLate)
	w.enforce()
	var rows int
	w.must(store.read.QueryRowContext(t.Context(), `SELECT count(*) FROM grants`).Scan(&rows))
	if rows != 0 {
		t.Errorf("%d rows are left of grants that are over", rows)
	}
}

// A client that has just used up its grant gets another one at its end, of no bytes where another node
// may still report all that is left: without a grant it had no bound.
func TestGrantsOfClientsThatMoveAreRenewed(t *testing.T) {
	now := time.Date(2030, 3, 10, 21, 0, 0, 0, time.UTC)
	all := []granted{
		{node: 1, multiplier: wholeByte, pace: 100, seen: millis(now), id: "used", bytes: 50, moved: 50, expires: millis(now)},
		{node: 2, multiplier: wholeByte, pace: 100, seen: millis(now), id: "held", bytes: 200, expires: millis(now.Add(grantLife))},
	}
	divide(all, 200, now)
	if g := all[0]; g.id == "used" || !g.changed || g.bytes != 0 || g.expires != millis(now.Add(grantLife)) {
		t.Errorf("the used grant became %+v", g)
	}
	if g := all[1]; g.id != "held" || g.changed || g.bytes != 200 {
		t.Errorf("the other node's became %+v", g)
	}
}
