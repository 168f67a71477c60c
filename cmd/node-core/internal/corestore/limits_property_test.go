package corestore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
)

// world is a Core whose clock the test moves, with nodes that do what agents do: they serve what
// their last document says, end a client whose grant is used up or over, and send rows that say
// how much a client moved in a minute.
type world struct {
	t      worldT
	store  *Store
	reopen func() *Store
	now    time.Time
	nodes  []*worldNode
	subs   []*worldSub
	batch  int
	quick  bool // enforce checks nothing
	// setBack is how many minutes the clock was set back in all.
	setBack int
}

// worldT is a test, of rapid or not.
type worldT interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

type worldNode struct {
	id, protocol, multiplier int64
	revision                 int64 // of the document
	connected, serves        bool
	ahead                    time.Duration    // of its clock
	document                 map[int64]*Grant // of the clients that it serves, by subscription; nil for no bound
	counted                  map[string]int64 // by id of a grant
	rows                     []wire.UsageEntry
	last                     []wire.UsageEntry // the last batch, and its key
	key                      string
}

// worldSub is a subscription, and what the test itself counts for it.
type worldSub struct {
	id, user     int64
	limit, extra int64
	daily        bool
	disabled     bool
	used         int64 // thousandths of bytes, as the limit counts them
	start, ends  time.Time
	bytes        int64 // true ones, that nodes have sent
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func newWorld(t *rapid.T, store *Store, reopen func() *Store, n int) *world {
	w := &world{t: t, reopen: reopen, now: time.Date(2030, 3, 10, 21, 0, 0, 0, time.UTC)}
	w.open(store)
	for i, multiplier := range []int64{1000, 333, 2500} {
		w.addNode(fmt.Sprint("node-", n, "-", i), multiplier)
	}
	user, err := store.AddUser(t.Context(), fmt.Sprint("user-", n))
	w.must(err)
	for _, period := range []string{"none", "day"} {
		limit := rapid.Int64Range(1, 5_000).Draw(t, "limit")
		sub, _, err := store.InsertSubscription(t.Context(), Subscription{UserID: user.ID, Terms: Terms{LimitBytes: limit, Period: period}})
		w.must(err)
		w.subs = append(w.subs, &worldSub{id: sub.ID, user: user.ID, limit: limit, daily: period == "day", ends: w.midnight()})
	}
	w.enforce()
	return w
}

func (w *world) open(s *Store) {
	w.store = s
	s.clock = func() time.Time { return w.now }
}

func (w *world) addNode(name string, multiplier int64) {
	node, _, err := w.store.AddNode(w.t.Context(), name, "", time.Hour)
	w.must(err)
	_, _, err = w.store.EditNode(w.t.Context(), name, func(n *Node) error { n.Multiplier = multiplier; return nil })
	w.must(err)
	p, err := w.store.AddProtocol(w.t.Context(), Protocol{NodeID: node.ID, Protocol: "vless", Listen: "0.0.0.0", Port: 1000, Config: []byte(`{}`)})
	w.must(err)
	w.nodes = append(w.nodes, &worldNode{id: node.ID, protocol: p.ID, multiplier: multiplier, connected: true, counted: map[string]int64{}})
}

// midnight is the next one.
func (w *world) midnight() time.Time { return w.now.Truncate(24 * time.Hour).Add(24 * time.Hour) }

// turn begins the days of the test's own count.
func (w *world) turn() {
	for _, s := range w.subs {
		if s.daily && !s.ends.After(w.now) {
			s.start, s.ends, s.used, s.extra = w.now.Truncate(24*time.Hour), w.midnight(), 0, 0
		}
	}
}

// move lets a client move bytes on a node, as many as the node lets it. It returns how many.
func (w *world) move(n *worldNode, s *worldSub, bytes int64) int64 {
	g, is := n.document[s.id]
	now := w.now.Add(n.ahead)
	switch {
	case !is:
		return 0
	case g != nil && !now.Before(g.ExpiresAt):
		return 0
	case g != nil:
		bytes = max(0, min(bytes, g.Bytes-n.counted[g.ID]))
		n.counted[g.ID] += bytes
	}
	if bytes > 0 {
		n.rows = append(n.rows, wire.UsageEntry{UserID: s.user, SubscriptionID: &s.id, NodeProtocolID: n.protocol, BytesDown: bytes, RecordedAt: now.Truncate(time.Minute)})
	}
	return bytes
}

// send sends the rows of a node, where there are any.
func (w *world) send(n *worldNode) {
	if !n.connected || len(n.rows) == 0 {
		return
	}
	w.batch++
	n.last, n.rows, n.key = n.rows, nil, fmt.Sprint(n.id, "-", w.batch)
	w.turn()
	for _, e := range n.last {
		i := slices.IndexFunc(w.subs, func(s *worldSub) bool { return s.id == *e.SubscriptionID })
		s := w.subs[i]
		s.bytes += e.BytesDown
		start := s.start
		if start.After(w.now) {
			start = w.now
		}
		if !e.RecordedAt.Before(start.Truncate(time.Minute)) {
			s.used += e.BytesDown * n.multiplier
		}
	}
	w.sendLast(n)
}

func (w *world) sendLast(n *worldNode) {
	if n.connected && n.key != "" {
		_, err := w.store.AddUsage(w.t.Context(), n.id, n.key, n.last)
		w.must(err)
		w.enforce()
	}
}

// enforce does what Enforce does after each wake, lets the nodes that are connected take their
// documents, and checks what is to hold then.
func (w *world) enforce() {
	w.turn()
	before := map[int64]outstanding{}
	for _, s := range w.subs {
		if !w.quick {
			before[s.id] = w.outstanding(s)
		}
	}
	_, _, err := w.store.enforceOnce(w.t.Context(), w.now)
	w.must(err)
	for _, n := range w.nodes {
		w.fetch(n)
	}
	for _, s := range w.subs {
		if !w.quick {
			w.check(s, before[s.id])
		}
	}
}

// outstanding is what nodes may still report of their grants, as the limit counts it, rounded up: of those
// that are divided, together, and of the greatest quiet one.
func (w *world) outstanding(s *worldSub) (o outstanding) {
	rows, err := w.store.read.QueryContext(w.t.Context(), `SELECT n.multiplier, g.bytes - g.moved, g.quiet FROM grants g JOIN nodes n ON n.id = g.node_id
		WHERE g.subscription_id = ? AND g.grant_id != '' AND g.bytes > g.moved AND g.expires_at + ? > ?`, s.id, rowsLate.Milliseconds(), millis(w.now))
	w.must(err)
	defer rows.Close()
	for rows.Next() {
		var multiplier, left int64
		var quiet bool
		w.must(rows.Scan(&multiplier, &left, &quiet))
		if left = (left*multiplier + 999) / 1000; quiet {
			o.quiet = max(o.quiet, left)
		} else {
			o.divided += left
		}
	}
	w.must(rows.Err())
	return o
}

type outstanding struct{ divided, quiet int64 }

func (w *world) fetch(n *worldNode) {
	revision, err := w.store.Revision(w.t.Context(), n.id)
	w.must(err)
	if !n.connected || revision == n.revision {
		return
	}
	rows, err := w.store.NodeRows(w.t.Context(), n.id)
	w.must(err)
	n.revision, n.document = revision, map[int64]*Grant{}
	if n.serves = rows.Node.Serves(); !n.serves {
		return
	}
	for _, sub := range rows.Subscriptions {
		n.document[sub.ID] = sub.Grant
	}
}

func (s *worldSub) status() string {
	switch {
	case s.disabled:
		return Disabled
	case s.used/1000 >= s.limit+s.extra:
		return Limited
	}
	return Active
}

func (w *world) check(s *worldSub, before outstanding) {
	w.t.Helper()
	got, err := w.store.Subscription(w.t.Context(), strconv.FormatInt(s.id, 10))
	w.must(err)
	if got.Status != s.status() || got.UsedBytes != s.used/1000 || got.BytesDown != s.bytes || got.ExtraBytes != s.extra {
		w.t.Fatalf("at %s the subscription of %d and %d bytes, daily: %t, is %s with %d used, %d in all, %d extra; want %s with %d used, %d in all, %d extra",
			w.now, s.limit, s.extra, s.daily, got.Status, got.UsedBytes, got.BytesDown, got.ExtraBytes, s.status(), s.used/1000, s.bytes, s.extra)
	}
	for i, n := range w.nodes {
		if _, is := n.document[s.id]; n.connected && n.serves && is != (s.status() == Active) {
			w.t.Fatalf("at %s node %d serves the subscription: %t, and it is %s", w.now, i, is, s.status())
		}
	}
	if after, left := w.outstanding(s), max(0, s.limit+s.extra-s.used/1000); s.status() == Active && (after.divided > max(before.divided, left) || after.quiet > max(2*left+3, before.quiet)) {
		w.t.Fatalf("at %s nodes may report %+v more bytes by their grants, and %d are left of the limit; it was %+v before", w.now, after, left, before)
	}
}

// edit changes a subscription, in Core and in the test's count.
func (w *world) edit(s *worldSub, change func(*Subscription) error, same func()) {
	w.turn()
	_, _, err := w.store.EditSubscription(w.t.Context(), strconv.FormatInt(s.id, 10), change)
	w.must(err)
	same()
	if s.daily {
		s.ends = w.midnight()
	}
	w.enforce()
}

func (w *world) actions(t *rapid.T) map[string]func(*rapid.T) {
	node := func() *worldNode { return rapid.SampledFrom(w.nodes).Draw(t, "node") }
	sub := func() *worldSub { return rapid.SampledFrom(w.subs).Draw(t, "subscription") }
	return map[string]func(*rapid.T){
		"move": func(t *rapid.T) {
			for range rapid.IntRange(1, 3).Draw(t, "moves") {
				w.move(node(), sub(), rapid.Int64Range(1, 2000).Draw(t, "bytes"))
			}
		},
		"send":       func(*rapid.T) { w.send(node()) },
		"send again": func(*rapid.T) { w.sendLast(node()) },
		"pass": func(t *rapid.T) {
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 120).Draw(t, "seconds")) * time.Second)
			w.enforce()
		},
		"pass hours": func(t *rapid.T) {
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 30).Draw(t, "hours")) * time.Hour)
			w.enforce()
		},
		"set the clock back": func(t *rapid.T) {
			minutes := rapid.IntRange(1, 120).Draw(t, "minutes")
			w.now = w.now.Add(-time.Duration(minutes) * time.Minute)
			w.setBack += minutes
		},
		"lose Core": func(*rapid.T) { node().connected = false },
		"reach Core": func(*rapid.T) {
			node().connected = true
			w.enforce()
		},
		"set a node's clock": func(t *rapid.T) {
			node().ahead = time.Duration(rapid.IntRange(-600, 600).Draw(t, "seconds")) * time.Second
		},
		"restart a node": func(*rapid.T) { // it counts its grants and keeps its rows over that, and asks for its document
			node().revision = 0
			w.enforce()
		},
		"restart": func(*rapid.T) {
			w.open(w.reopen())
			w.enforce()
		},
		"top up": func(t *rapid.T) {
			s, bytes := sub(), rapid.Int64Range(1, 3000).Draw(t, "bytes")
			w.edit(s, func(sub *Subscription) error { return sub.TopUp(bytes) }, func() { s.extra += bytes })
		},
		"reset": func(*rapid.T) {
			s := sub()
			w.edit(s, func(sub *Subscription) error { sub.Reset(w.now); return nil }, func() { s.used, s.extra, s.start = 0, 0, w.now })
		},
		"another limit": func(t *rapid.T) {
			s, limit := sub(), rapid.Int64Range(1, 5000).Draw(t, "limit")
			w.edit(s, func(sub *Subscription) error { sub.LimitBytes = limit; return nil }, func() { s.limit = limit })
		},
		"disable or enable": func(*rapid.T) {
			s := sub()
			w.edit(s, func(sub *Subscription) error { sub.Enabled = !sub.Enabled; return nil }, func() { s.disabled = !s.disabled })
		},
	}
}

// finish lets all nodes reach Core, and what was given out come back. Then each subscription that
// has bytes left is let in, and each that goes on is limited at its limit.
func (w *world) finish() {
	for _, n := range w.nodes {
		n.connected, n.ahead = true, 0
	}
	w.enforce()
	for _, n := range w.nodes {
		w.send(n)
	}
	w.now = w.now.Add(2 * (grantLife + rowsLate))
	w.enforce()
	for _, s := range w.subs {
		if s.disabled || s.daily {
			continue
		}
		for minute := 0; s.status() == Active; minute++ {
			if minute == 120+w.setBack { // grants of before the clock was set back live until then
				w.t.Fatalf("a client with %d of %d bytes used gets no more, and is not limited", s.used/1000, s.limit+s.extra)
			}
			w.move(w.nodes[0], s, 700)
			w.now = w.now.Add(time.Minute)
			w.send(w.nodes[0])
			w.enforce()
		}
	}
}

// Whatever the order of rows, edits, grants, restarts and steps of the clock: Core counts what nodes
// have sent, exactly, cuts who has reached the limit and nobody else, on all nodes that
// it reaches, and gives out no more than is left.
func TestLimitsHoldInAnyOrder(t *testing.T) {
	store, reopen := reopening(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		w := newWorld(t, store, func() *Store { store = reopen(); return store }, n)
		actions := w.actions(t)
		names := slices.Sorted(maps.Keys(actions))
		// Rows come more often than anything else.
		names = append(names, "move", "move", "move", "send", "send", "pass")
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			actions[rapid.SampledFrom(names).Draw(t, "action")](t)
		}
		w.finish()
		for _, n := range w.nodes { // the next world is not to raise their revisions
			w.must(w.store.RemoveNode(t.Context(), n.id))
		}
	})
}

// reopening opens a database, and returns what closes it and opens it again.
func reopening(t *testing.T) (first *Store, again func() *Store) {
	t.Helper()
	dir := t.TempDir()
	var s *Store
	open := func() *Store {
		if s != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if s, err = Open(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Cleanup(func() { _ = s.Close() })
	return open(), open
}
