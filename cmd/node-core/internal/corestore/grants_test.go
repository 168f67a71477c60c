package corestore

import (
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A client that is near its limit and was idle until its grant is over goes on without waiting: the
// grant leaves the node's document before its end, at which the node would end the client's connections.
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
	n, began := w.nodes[0], w.now
	if moved := w.move(n, s, 9000); moved != 9000 {
		t.Fatalf("%d bytes were moved", moved)
	}
	w.send(n)
	g := n.document[s.id]
	if g == nil {
		t.Fatal("a client near its limit has no grant")
	}
	for w.now.Before(g.ExpiresAt.Add(-grantLeaves - 10*time.Second)) {
		w.now = w.now.Add(10 * time.Second)
		w.enforce()
		if now := n.document[s.id]; now != nil {
			g = now
		} else {
			t.Fatalf("the grant left the document at %s, and it ends at %s", w.now, g.ExpiresAt)
		}
	}
	w.now = g.ExpiresAt.Add(-grantLeaves)
	_, next, err := store.enforceOnce(t.Context(), w.now.Add(-time.Millisecond))
	w.must(err)
	if !next.Equal(w.now) {
		t.Errorf("the grant is due at %s, want %s, and its end is at %s", next, w.now, g.ExpiresAt)
	}
	// It has a quiet one then, of all that is left, until an hour after its last row.
	w.enforce()
	w.now = w.now.Add(documentEvery)
	w.enforce()
	quiet := n.document[s.id]
	if quiet == nil || quiet.ID == g.ID || quiet.Bytes > 1000 || quiet.Bytes < 1 || quiet.ExpiresAt.Before(began.Add(quietFor-time.Minute)) || quiet.ExpiresAt.After(began.Add(quietFor)) {
		t.Fatalf("before its end the document has the grant %+v", quiet)
	}
	revision := n.revision
	for w.now.Before(quiet.ExpiresAt.Add(-grantLeaves - time.Minute)) {
		w.now = w.now.Add(30 * time.Second)
		w.enforce()
	}
	if n.revision != revision {
		t.Error("a client that does nothing gives its node other documents")
	}
	w.now = quiet.ExpiresAt.Add(-grantLeaves)
	w.enforce()
	w.now = w.now.Add(documentEvery)
	w.enforce()
	if now, served := n.document[s.id]; now != nil || !served {
		t.Errorf("before its end the document has the grant %+v, and the client: %t", now, served)
	}
	w.now = quiet.ExpiresAt.Add(rowsLate)
	w.enforce()
	var rows int
	w.must(store.read.QueryRowContext(t.Context(), `SELECT count(*) FROM grants`).Scan(&rows))
	if rows != 0 {
		t.Errorf("%d rows are left of grants that are over", rows)
	}
}

// A client that has little left and has moved little has a grant on each of the few nodes that it reaches,
// of all that is left. When it bursts on one, it is ended at its limit. Once it is seen there, it is not
// bounded below what is left for long.
func TestQuietClientsAreBounded(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		store, err := Open(t.Context(), t.TempDir())
		quietClients(t, store, err)
	})
	t.Run("postgres", func(t *testing.T) {
		store, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
		quietClients(t, store, err)
	})
}

func quietClients(t *testing.T, store *Store, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const limit = 64 << 20
	w := &world{t: t, now: time.Date(2030, 3, 10, 21, 0, 0, 0, time.UTC)}
	w.open(store)
	for _, name := range []string{"a", "b", "c"} {
		w.addNode(name, 1000)
	}
	user, err := store.AddUser(t.Context(), "alice")
	w.must(err)
	add := func() *worldSub {
		sub, _, err := store.InsertSubscription(t.Context(), Subscription{UserID: user.ID, Terms: Terms{LimitBytes: limit}})
		w.must(err)
		w.subs = append(w.subs, &worldSub{id: sub.ID, user: user.ID, limit: limit})
		return w.subs[len(w.subs)-1]
	}
	s, far := add(), add()
	w.enforce()
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	step := func(d time.Duration) {
		w.now = w.now.Add(d)
		w.enforce()
	}
	w.move(a, far, limit-quietRest-1)
	w.move(a, s, limit-quietRest-1)
	w.send(a)
	step(5 * time.Minute)
	step(5 * time.Minute)
	if a.document[s.id] != nil || b.document[s.id] != nil {
		t.Fatalf("a client with a bit more than %d bytes left has grants", quietRest)
	}
	w.move(a, s, quietRest-999)
	w.send(a)
	step(time.Second)
	if a.document[s.id] == nil || b.document[s.id] == nil || c.document[s.id] == nil || a.document[far.id] != nil {
		t.Fatalf("the grants are %v, %v, %v, and %v of the other client", a.document[s.id], b.document[s.id], c.document[s.id], a.document[far.id])
	}
	step(10 * time.Minute)
	if moved := w.move(b, s, 1<<30); moved != 1000 {
		t.Errorf("with 1000 bytes left, the client moves %d on a node where it was not seen", moved)
	}
	w.send(b)
	step(time.Second)
	if s.status() != Limited {
		t.Errorf("it is %s", s.status())
	}
	w.edit(s, func(sub *Subscription) error { return sub.TopUp(5000) }, func() { s.extra += 5000 })
	step(time.Second)
	for moved, i := int64(0), 0; moved < 5000; i++ {
		if i == 20 {
			t.Fatalf("of 5000 bytes the client moves %d", moved)
		}
		moved += w.move(c, s, 5000)
		w.send(c)
		step(time.Second)
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

// A client with bytes left gets some of them, also by rows of so few bytes that it has no pace.
func TestGrantsOfClientsWithoutAPace(t *testing.T) {
	now := time.Date(2030, 3, 10, 21, 0, 0, 0, time.UTC)
	all := []granted{
		{node: 1, multiplier: wholeByte, seen: millis(now)},
		{node: 2, multiplier: wholeByte, seen: millis(now), id: "used", bytes: 5, moved: 5, expires: millis(now.Add(grantLife))},
	}
	divide(all, 1000, now)
	for _, g := range all {
		if !g.changed || g.outstanding(now) != 375 { // a half of what is divided
			t.Errorf("of 1000 bytes it may move %+v", g)
		}
	}
}

// A quiet grant grows with what is left at once, and shrinks where it is twice as much.
func TestQuietGrantsFollowWhatIsLeft(t *testing.T) {
	now := time.Date(2030, 3, 10, 21, 0, 0, 0, time.UTC)
	for left, want := range map[int64]int64{1001: 1001, 1000: 1000, 500: 1000, 499: 499} {
		all := []granted{{node: 1, multiplier: wholeByte, seen: millis(now.Add(-10 * time.Minute)), id: "a", bytes: 1100, moved: 100, expires: millis(now.Add(quietFor - 10*time.Minute)), quiet: true}}
		divide(all, left, now)
		if got := all[0].outstanding(now); got != want {
			t.Errorf("with %d bytes left the quiet grant has %d, want %d", left, got, want)
		}
	}
}

// Grants that become quiet count too for how many quiet ones a node's document has.
func TestFewGrantsBecomeQuiet(t *testing.T) {
	s := openStore(t)
	now := time.Now().UTC().Truncate(time.Minute)
	s.clock = func() time.Time { return now }
	node, _, err := s.AddNode(t.Context(), "node", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	user, err := s.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	var rows []wire.UsageEntry
	for range mostQuiet + 3 {
		sub, _, err := s.InsertSubscription(t.Context(), Subscription{UserID: user.ID, Terms: Terms{LimitBytes: 10_000}})
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, wire.UsageEntry{UserID: user.ID, SubscriptionID: &sub.ID, NodeProtocolID: 1, BytesUp: 9000, RecordedAt: now})
	}
	if _, err := s.AddUsage(t.Context(), node.ID, "", rows); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{mostQuiet + 3, mostQuiet} {
		if _, _, err := s.enforceOnce(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if grants, err := s.Grants(t.Context(), node.ID); err != nil || len(grants) != want {
			t.Errorf("step %d: the document has %d grants, want %d: %v", i, len(grants), want, err)
		}
		now = now.Add(grantLife - grantLeaves)
	}
}
