package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/postgrestest"
)

// told returns the kinds of all events.
func told(t *testing.T, s *Store) []coreapi.EventKind {
	t.Helper()
	p, err := s.EventsAfter(t.Context(), EventQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []coreapi.EventKind
	for _, e := range p.Events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func wantKinds(t *testing.T, s *Store, want ...coreapi.EventKind) {
	t.Helper()
	if got := told(t, s); !slices.Equal(got, want) {
		t.Errorf("the events are %v, want %v", got, want)
	}
}

// A node's changes of state are events, each once, however often it is looked at and by however many
// instances.
func TestStatesOfNodesAreEvents(t *testing.T) {
	s := openStore(t)
	node, code, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "fra1"}, ""); err != nil {
		t.Fatal(err)
	}
	ago := func(d time.Duration) { // nothing was heard of the node, and nothing told, for d
		t.Helper()
		if err := s.storeSeen(t.Context()); err != nil {
			t.Fatal(err)
		}
		at := millis(time.Now().Add(-d))
		for _, text := range []string{`UPDATE nodes SET last_seen_at = ?1, told_at = ?1 WHERE id = ?2`, `UPDATE node_seen SET at = ?1 WHERE node_id = ?2`} {
			if _, err := s.write.ExecContext(t.Context(), text, at, node.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	beat := func() {
		t.Helper()
		if _, err := s.Heartbeat(t.Context(), node.ID, wire.HeartbeatRequest{Revision: &node.Revision}, Daemon{}); err != nil {
			t.Fatal(err)
		}
	}
	look := func(since time.Time) {
		t.Helper()
		if err := s.lookAtNodes(t.Context(), time.Now(), since); err != nil {
			t.Fatal(err)
		}
	}
	beat()
	beat()
	want := []coreapi.EventKind{coreapi.EventNodeOnline}
	wantKinds(t, s, want...)

	ago(time.Hour)
	look(time.Now().Add(-time.Minute)) // a Core that has just started
	wantKinds(t, s, want...)
	for range 2 {
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { look(time.Time{}) })
		}
		both.Wait()
	}
	want = append(want, coreapi.EventNodeOffline)
	wantKinds(t, s, want...)
	ago(time.Hour)
	beat()
	want = append(want, coreapi.EventNodeOnline)
	wantKinds(t, s, want...)

	ago(time.Minute)
	for range 2 {
		if err := s.AddError(t.Context(), node.ID, "", wire.ErrorRequest{Code: "config_invalid", Message: "secret 00000000-0000-4000-8000-000000000000", Details: map[string]any{"parts": []any{map[string]any{"kind": "inbound", "tag": "a"}}}}); err != nil {
			t.Fatal(err)
		}
	}
	want = append(want, coreapi.EventNodeDegraded)
	wantKinds(t, s, want...)
	// The change back comes too soon, and is told at a look.
	if err := s.Applied(t.Context(), node.ID, "", node.Revision); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, s, want...)
	ago(time.Minute)
	look(time.Time{})
	look(time.Time{})
	want = append(want, coreapi.EventNodeOnline)
	wantKinds(t, s, want...)
	p, err := s.EventsAfter(t.Context(), EventQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	if e := p.Events[3]; e.Node != "fra1" || e.NodeID != node.ID || string(e.Data) != `{"code":"config_invalid"}` {
		t.Errorf("the event is %+v with %s", e, e.Data)
	}
}

// A user who is seen online for the first time is an event, once.
func TestFirstConnection(t *testing.T) {
	s := openStore(t)
	user, err := s.AddUser(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		events := []wire.SessionEvent{{UserID: user.ID, Protocol: "vless", EventType: wire.Online, OccurredAt: time.Now()}, {UserID: 999, EventType: wire.Online, OccurredAt: time.Now()}}
		if err := s.AddSessionEvents(t.Context(), 1, "", append(events, events...)); err != nil {
			t.Fatal(err)
		}
	}
	wantKinds(t, s, coreapi.EventFirstConnected)
}

func (s *Store) write1(ctx context.Context, kind coreapi.EventKind) error {
	return s.retried(ctx, s.write, func(tx *sql.Tx) error { return s.event(ctx, tx, Event{Kind: kind}, nil) })
}

// A change that is rolled back leaves no event, and wakes nobody.
func TestEventsBelongToTheirChange(t *testing.T) {
	s := openStore(t)
	woken := 0
	s.OnEvent(func() { woken++ })
	failed := errors.New("no")
	if err := s.inTransaction(t.Context(), func(tx *sql.Tx) error {
		return errors.Join(s.event(t.Context(), tx, Event{Kind: "a"}, nil), failed)
	}); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if err := s.inTransaction(t.Context(), func(*sql.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, s)
	if woken != 0 {
		t.Error("readers were woken for nothing")
	}
	if err := s.write1(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, s, "b")
	if woken != 1 {
		t.Errorf("readers were woken %d times, want once", woken)
	}
}

// A reader that goes on from its cursor gets each event once, in one order, also where a transaction
// that began earlier is committed later.
func TestReadersMissNoEvent(t *testing.T) {
	s := openStore(t)
	const writers, each = 6, 25
	if postgrestest.Running() != nil { // SQLite has one transaction at a time
		early, err := s.write.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.event(t.Context(), early, Event{Kind: "early"}, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.write1(t.Context(), "late"); err != nil {
			t.Fatal(err)
		}
		p, err := s.EventsAfter(t.Context(), EventQuery{Limit: 10})
		if err != nil || len(p.Events) != 1 || p.Events[0].Kind != "late" {
			t.Fatalf("got %+v, %v", p, err)
		}
		if err := early.Commit(); err != nil {
			t.Fatal(err)
		}
		if p, err = s.EventsAfter(t.Context(), EventQuery{After: p.Next, Limit: 10}); err != nil || len(p.Events) != 1 || p.Events[0].Kind != "early" {
			t.Fatalf("the event that was committed late is missed: %+v, %v", p, err)
		}
	}
	start, err := s.NewestEvent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				err := s.retried(t.Context(), s.write, func(tx *sql.Tx) error {
					for part := range 1 + i%3 {
						if err := s.event(t.Context(), tx, Event{Kind: coreapi.EventKind(fmt.Sprintf("%d.%d.%d", w, i, part))}, nil); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { writing.Wait(); close(written) }()
	read := func(limit int) (kinds []coreapi.EventKind) {
		over := false
		for cursor := start; ; {
			p, err := s.EventsAfter(t.Context(), EventQuery{After: cursor, Limit: limit})
			if err != nil {
				t.Error(err)
				return nil
			}
			for _, e := range p.Events {
				if e.ID <= cursor {
					t.Errorf("event %d comes after %d", e.ID, cursor)
				}
				cursor = e.ID
				kinds = append(kinds, e.Kind)
			}
			cursor = p.Next
			if len(p.Events) == 0 && over {
				return kinds
			}
			select {
			case <-written:
				over = len(p.Events) == 0
			default:
			}
		}
	}
	var one, other []coreapi.EventKind
	var reading sync.WaitGroup
	reading.Go(func() { one = read(3) })
	reading.Go(func() { other = read(50) })
	reading.Wait()
	if !slices.Equal(one, other) {
		t.Errorf("two readers see another order or other events: %v and %v", one, other)
	}
	want := writers * (each/3*6 + 1)
	slices.Sort(one)
	if got := len(slices.Compact(one)); got != want || len(other) != want {
		t.Errorf("%d events were read, %d of them different; want %d", len(other), got, want)
	}
}

// A reader whose cursor is older than what is kept is told so.
func TestDeletedEventsAreTold(t *testing.T) {
	s := openStore(t)
	for range 10 {
		if err := s.write1(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	page := func(after int64) EventPage {
		t.Helper()
		p, err := s.EventsAfter(t.Context(), EventQuery{After: after, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	all := page(0)
	if err := s.boundEvents(t.Context(), time.Now().Add(-time.Hour), 4); err != nil {
		t.Fatal(err)
	}
	for after, lost := range map[int64]bool{0: false, all.Events[2].ID: true, all.Events[5].ID: false, all.Events[7].ID: false} {
		if p := page(after); p.Lost != lost {
			t.Errorf("after %d: lost is %v, want %v", after, p.Lost, lost)
		}
	}
	if p := page(0); len(p.Events) != 4 || p.Events[0].ID != all.Events[6].ID {
		t.Errorf("the newest four are kept: %+v", p.Events)
	}
	if err := s.Upkeep(t.Context(), time.Now().Add(eventLife+time.Hour)); err != nil {
		t.Fatal(err)
	}
	if p := page(all.Next); len(p.Events) != 0 || p.Lost || p.Next != all.Next {
		t.Errorf("a reader that has all has lost some: %+v", p)
	}
	if p := page(all.Events[8].ID); !p.Lost {
		t.Error("nothing is said of the last event, which is deleted")
	}
}

// A reader whose cursor is of a database that was replaced by an older one is told once that events are
// lost, and goes on; one that begins anew is told nothing.
func TestCursorsFromBeforeARestore(t *testing.T) {
	s := openStore(t)
	if err := s.write1(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	page := func(s *Store, after int64) EventPage {
		t.Helper()
		p, err := s.EventsAfter(t.Context(), EventQuery{After: after, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	told := func(s *Store, kept, forgotten int64) {
		t.Helper()
		for _, after := range []int64{kept, forgotten} {
			first := page(s, after)
			if again := page(s, first.Next); !first.Lost || again.Lost || len(again.Events) != 0 {
				t.Errorf("after %d: got %+v and then %+v", after, first, again)
			}
		}
		if p := page(s, 0); p.Lost || len(p.Events) != 1 {
			t.Errorf("from the beginning: got %+v", p)
		}
		next := page(s, forgotten).Next
		if err := s.write1(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if p := page(s, next); p.Lost || len(p.Events) != 1 {
			t.Errorf("after the first event since: got %+v", p)
		}
	}
	later := func(id int64) {
		for millis(time.Now()) <= id { // ids carry the time
			time.Sleep(time.Millisecond)
		}
	}
	kept := page(s, 0).Next
	later(kept + 1)
	// A node names a revision that this database has not given: the file was replaced by an older one.
	if raised, err := s.noticeRestore(t.Context(), new(millis(time.Now())), 1); err != nil || !raised {
		t.Fatalf("the epoch is not raised: %v", err)
	}
	told(s, kept, kept+1)

	from, dir, backup := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "backup.db")
	before, err := Open(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if err := before.write1(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	kept = page(before, 0).Next
	if err := Backup(t.Context(), from, backup); err != nil {
		t.Fatal(err)
	}
	if err := before.write1(t.Context(), "forgotten"); err != nil {
		t.Fatal(err)
	}
	forgotten := page(before, 0).Next
	later(forgotten)
	if _, err := Restore(t.Context(), backup, dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	restored, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	var numbered bool
	if err := restored.read.QueryRowContext(t.Context(), `SELECT seq >= events_deleted FROM core, sqlite_sequence WHERE name = 'events'`).Scan(&numbered); err != nil || !numbered {
		t.Errorf("events after the restore have ids below the lost ones: %v", err)
	}
	told(restored, kept, forgotten)
}

// Events after a restore come to readers also where the clock that numbers events is behind the one by
// which Core tells that events are lost.
func TestEventsAfterARestoreWithAClockBehind(t *testing.T) {
	for name, before := range map[string]int{"the first event": 0, "a later event": 1} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			for range before {
				if err := s.write1(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
			}
			ahead := time.Now().Add(time.Hour)
			s.clock = func() time.Time { return ahead }
			if raised, err := s.noticeRestore(t.Context(), new(millis(ahead)), 1); err != nil || !raised {
				t.Fatalf("the epoch is not raised: %v", err)
			}
			p, err := s.EventsAfter(t.Context(), EventQuery{After: 1, Limit: 100})
			if err != nil || !p.Lost || p.Next != millis(ahead) {
				t.Fatalf("a cursor of before: %+v, %v", p, err)
			}
			if err := s.write1(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
			p, err = s.EventsAfter(t.Context(), EventQuery{After: p.Next, Limit: 100})
			if err != nil || p.Lost || len(p.Events) != 1 || p.Events[0].ID != millis(ahead)+1 {
				t.Errorf("after the next event: %+v, %v", p, err)
			}
		})
	}
}

// Transactions that write an event and change what links say, in either order, do not wait for each
// other at their commits.
func TestCommitsDoNotWaitForEachOther(t *testing.T) {
	s := openStore(t)
	ctx := t.Context()
	var nodes [2]int64
	for i := range nodes {
		node, _, err := s.AddNode(ctx, fmt.Sprint("node-", i), "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		nodes[i] = node.ID
	}
	event := func(tx *sql.Tx, node int64) error {
		return s.event(ctx, tx, Event{Kind: coreapi.EventNodeOnline, NodeID: node}, nil)
	}
	change := func(tx *sql.Tx, node int64) error {
		_, err := tx.ExecContext(ctx, `UPDATE nodes SET region = region || 'x' WHERE id = ?`, node)
		return err
	}
	if postgrestest.Running() == nil {
		t.Skip("NOT RUN on SQLite, whose transactions come one after the other; TestPostgres runs it on PostgreSQL (apt-get install postgresql)")
	}
	if err := s.write1(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	// Both wait for the number of events; whichever has it first must not need what the other one has.
	hold, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Rollback() //nolint:errcheck // does nothing after the one below
	if _, err := hold.ExecContext(ctx, `UPDATE sqlite_sequence SET seq = seq WHERE name = 'events'`); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for i, order := range [][]func(*sql.Tx, int64) error{{event, change}, {change, event}} {
		both.Go(func() {
			if err := s.transaction(ctx, s.write, func(tx *sql.Tx) error {
				return errors.Join(order[0](tx, nodes[i]), order[1](tx, nodes[i]))
			}); err != nil {
				t.Errorf("transaction %d: %v", i, err)
			}
		})
		for waiting := 0; waiting <= i; time.Sleep(time.Millisecond) {
			if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := hold.Rollback(); err != nil {
		t.Fatal(err)
	}
	both.Wait()
}
