package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"nodeagent/coreapi"
)

// Event is one thing that has happened, see coreapi.EventKind.
type Event = coreapi.Event

// event writes an event in the transaction of the change that it tells of. The kinds, and the
// members of data for each, are documented at coreapi.EventKind. The caller sets the kind and the ids of
// its subjects; the time and the names are found here where they are empty. data becomes the
// event's JSON object, and nil an empty one. It must have no secret, and no text of a node that can
// have one.
//
// The event must be the last word about the change: a caller that can run twice (after a restart, or
// on another instance) first changes a row and writes the event only if that changed something.
func (s *Store) event(ctx context.Context, tx *sql.Tx, e Event, data any) error {
	return s.events(ctx, tx, []newEvent{{e, data}})
}

// newEvent is an event to write, see event.
type newEvent struct {
	Event
	data any
}

// events writes events in their order.
func (s *Store) events(ctx context.Context, tx *sql.Tx, all []newEvent) error {
	if len(all) == 0 {
		return nil
	}
	if err := nameSubjects(ctx, tx, all); err != nil {
		return err
	}
	ids, err := s.dialect.eventIDs(ctx, tx, len(all))
	if err != nil {
		return fmt.Errorf("number event %s: %w", all[0].Kind, err)
	}
	for part := range slices.Chunk(all, rowsPerInsert) {
		args := make([]any, 0, 9*len(part))
		for _, e := range part {
			if e.data == nil {
				e.data = struct{}{}
			}
			raw, err := json.Marshal(e.data)
			if err != nil {
				return fmt.Errorf("encode event %s: %w", e.Kind, err)
			}
			if e.At.IsZero() {
				e.At = time.Now()
			}
			args = append(args, ids[0], millis(e.At), string(e.Kind), e.NodeID, e.Node, e.UserID, e.User, e.SubscriptionID, string(raw))
			ids = ids[1:]
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO events (id, at, kind, node_id, node, user_id, user_name, subscription_id, data)
			VALUES `+placeholders(9, len(part)), args...); err != nil {
			return fmt.Errorf("write event %s: %w", part[0].Kind, err)
		}
	}
	s.eventful.Store(tx, true)
	return nil
}

// nameSubjects sets the names of the nodes and users that events tell of, where they are empty. Those that
// are removed have none.
func nameSubjects(ctx context.Context, tx *sql.Tx, all []newEvent) error {
	for table, of := range map[string]func(*Event) (int64, *string){
		"nodes": func(e *Event) (int64, *string) { return e.NodeID, &e.Node },
		"users": func(e *Event) (int64, *string) { return e.UserID, &e.User },
	} {
		wanted, names := map[int64]bool{}, map[int64]string{}
		for i := range all {
			if id, name := of(&all[i].Event); id != 0 && *name == "" {
				wanted[id] = true
			}
		}
		for ids := range chunks(idsOf(slices.Sorted(maps.Keys(wanted)))) {
			rows, err := tx.QueryContext(ctx, `SELECT id, name FROM `+table+` WHERE id IN `+placeholders(len(ids), 1), ids...)
			if err := collectMap(rows, err, names); err != nil {
				return fmt.Errorf("find the names for events in %s: %w", table, err)
			}
		}
		for i := range all {
			if id, name := of(&all[i].Event); id != 0 && *name == "" {
				*name = names[id]
			}
		}
	}
	return nil
}

// OnEvent says which function is called after the commit of a transaction that has written events.
// It is called before the store is used. On PostgreSQL, Listen tells of events of all instances.
func (s *Store) OnEvent(f func()) { s.onEvent = f }

// EventQuery says which events are read.
type EventQuery struct {
	After int64 // the id of the last event that the reader has; 0 for the beginning
	Kinds []coreapi.EventKind
	Limit int
}

// EventPage is what a reader of events gets.
type EventPage struct {
	Events []Event
	// Next is the cursor for the next page. It is beyond the last event where later ones are not wanted.
	Next int64
	// Lost is set where events after the cursor were deleted before they were read, or where they may
	// have been in a database that was replaced by an older one since.
	Lost bool
}

// EventsAfter returns the events after a cursor, in the order of their commits.
func (s *Store) EventsAfter(ctx context.Context, q EventQuery) (p EventPage, err error) {
	// The newest is read first: an event that is committed after that comes with the next page.
	newest, err := s.NewestEvent(ctx)
	if err != nil {
		return p, err
	}
	where, args := eventsWanted(q)
	rows, err := s.read.QueryContext(ctx, `SELECT `+eventColumns+` FROM events WHERE `+where+` AND id <= ? ORDER BY id LIMIT ?`, append(args, newest, q.Limit)...)
	if p.Events, err = collect(rows, err, func(r *sql.Rows) (Event, error) { return scanEvent(r) }); err != nil {
		return p, fmt.Errorf("read events: %w", err)
	}
	p.Next = max(q.After, newest)
	if n := len(p.Events); n == q.Limit && n > 0 {
		p.Next = p.Events[n-1].ID
	}
	// It is read last: what Upkeep deletes meanwhile counts as lost.
	var deleted int64
	if err := s.read.QueryRowContext(ctx, `SELECT events_deleted FROM core`).Scan(&deleted); err != nil {
		return p, fmt.Errorf("read which events are deleted: %w", err)
	}
	p.Lost = q.After > 0 && q.After < deleted
	return p, nil
}

// eventsWanted is a condition for the events after a cursor, and its arguments.
func eventsWanted(q EventQuery) (where string, args []any) {
	where, args = "id > ?", []any{q.After}
	if len(q.Kinds) > 0 {
		where += " AND kind IN " + placeholders(len(q.Kinds), 1)
		for _, k := range q.Kinds {
			args = append(args, string(k))
		}
	}
	return where, args
}

// NewestEvent returns the id of the newest event; 0 for none.
func (s *Store) NewestEvent(ctx context.Context) (int64, error) { return newestEvent(ctx, s.read) }

func newestEvent(ctx context.Context, db queryer) (id int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT max((SELECT coalesce(max(id), 0) FROM events), (SELECT events_deleted FROM core))`).Scan(&id)
	return id, err
}

const eventColumns = `id, at, kind, node_id, node, user_id, user_name, subscription_id, data`

func scanEvent(row interface{ Scan(...any) error }) (e Event, err error) {
	var at int64
	var kind, data string
	err = row.Scan(&e.ID, &at, &kind, &e.NodeID, &e.Node, &e.UserID, &e.User, &e.SubscriptionID, &data)
	e.At, e.Kind, e.Data = time.UnixMilli(at).UTC(), coreapi.EventKind(kind), json.RawMessage(data)
	return e, err
}

// loseEvents is a part of an UPDATE of core: readers whose cursors are less than an id are told that events
// are lost. An id is a moment in Unix milliseconds where the database is not the one that gave the cursors:
// numberEventsAfter has to follow in the same transaction then.
const loseEvents = `events_deleted = max(events_deleted, ?)`

// numberEventsAfter makes all later events have greater ids than the id, also where the clock that numbers
// them is behind. It is the last statement of a transaction: number_event locks nothing after the counter.
func numberEventsAfter(ctx context.Context, tx *sql.Tx, id int64) error {
	for _, statement := range []string{
		`INSERT INTO sqlite_sequence (name, seq) SELECT 'events', ?1 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events') ON CONFLICT DO NOTHING`,
		`UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'events' AND seq < ?1`,
	} {
		if _, err := tx.ExecContext(ctx, statement, id); err != nil {
			return fmt.Errorf("number later events after %d: %w", id, err)
		}
	}
	return nil
}

const (
	// eventLife is how long events are kept.
	eventLife = 90 * 24 * time.Hour
	// mostEvents is how many events are kept, the newest.
	mostEvents = 1_000_000
)

// boundEvents deletes events that are older than the time, and all but the newest most.
func (s *Store) boundEvents(ctx context.Context, before time.Time, most int) error {
	var until sql.NullInt64
	if err := s.read.QueryRowContext(ctx, `SELECT max(coalesce((SELECT max(id) FROM events WHERE at < ?), 0),
		coalesce((SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?), 0))`, millis(before), most).Scan(&until); err != nil {
		return err
	}
	if until.Int64 == 0 {
		return nil
	}
	// Readers see that events are lost before they are.
	if err := s.inTransaction(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE core SET `+loseEvents, until.Int64)
		return err
	}); err != nil {
		return err
	}
	return s.deleteInSteps(ctx, `DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id <= ? LIMIT ?)`, until.Int64)
}
