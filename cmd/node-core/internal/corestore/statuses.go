package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"nodeagent/coreapi"
)

// statusChange is a subscription whose status has become another one.
type statusChange struct {
	subscription, group int64
	from, to            string
}

// served reports whether nodes let in a subscription with the status.
func served(status string) bool { return status == Active || status == OnHold }

// noteStatuses notes that the statuses of subscriptions have changed, in the transaction of the
// change: events tell of it, and the nodes concerned get another document soon. All changes by the
// clock and by usage rows come here.
//
// nodes are others, of which not only clients are to change.
func (s *Store) noteStatuses(ctx context.Context, tx *sql.Tx, changes []statusChange, nodes ...int64) error {
	var groups []int64
	for _, c := range changes {
		if served(c.from) != served(c.to) {
			groups = append(groups, c.group)
		}
	}
	if err := s.tellStatuses(ctx, tx, changes); err != nil {
		return err
	}
	return noteDue(ctx, tx, due{groups: groups, layouts: nodes})
}

// due are nodes that are to get another document: those that groups reach and those of nodes, whose
// clients are other ones, and those of layouts, of which anything can be.
type due struct{ groups, nodes, layouts []int64 }

// noteDue writes down which nodes are to get another document. The revisions are raised by raiseDue, soon and
// once for many changes, and not here: batches of usage rows would wait for each other's nodes, and a node
// would get a document for each of them.
//
// One statement takes the rows in the order of their ids, so that no two batches wait for each
// other, and locks those that are there: raiseDue, which takes a row away, waits for this change.
func noteDue(ctx context.Context, tx *sql.Tx, d due) error {
	if len(d.groups) == 0 && len(d.nodes) == 0 && len(d.layouts) == 0 {
		return nil
	}
	reached, args := reachedBy(d.groups)
	layouts, ids := inList(d.layouts)
	in, all := inList(slices.Concat(d.nodes, d.layouts))
	if _, err := tx.ExecContext(ctx, `INSERT INTO due_nodes (node_id, layout) SELECT id, CASE WHEN id IN `+layouts+` THEN 1 ELSE 0 END FROM nodes WHERE `+reached+` OR id IN `+in+`
		ORDER BY id ON CONFLICT (node_id) DO UPDATE SET layout = max(due_nodes.layout, excluded.layout)`, slices.Concat(ids, args, all)...); err != nil {
		return fmt.Errorf("note which nodes are to get another document: %w", err)
	}
	return nil
}

// raiseDue raises the revisions of the nodes that are due, and returns those nodes. A node whose
// revision was raised within documentEvery waits. A revision is the time at which it was raised, or a
// little more; one further in the future is of before the clock was set back.
func (s *Store) raiseDue(ctx context.Context, now time.Time) (nodes []int64, err error) {
	due := `FROM due_nodes WHERE EXISTS (SELECT 1 FROM nodes WHERE id = due_nodes.node_id AND (` + wanted + ` <= ?1 OR ` + wanted + ` > ?2))`
	last, future := millis(now.Add(-documentEvery)), millis(now.Add(documentEvery))
	var some bool
	if err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 `+due+`)`, last, future).Scan(&some); err != nil || !some {
		return nil, err
	}
	defer func() { s.known.forgetBeats(nodes...) }()
	return nodes, s.inEdit(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `DELETE `+due+` RETURNING node_id, layout`, last, future)
		raised, err := collect(rows, err, func(r *sql.Rows) (n [2]int64, err error) { return n, r.Scan(&n[0], &n[1]) })
		if err != nil {
			return err
		}
		nodes = nil
		for _, n := range raised {
			if _, err := tx.ExecContext(ctx, `UPDATE nodes SET revision = max(`+wanted+` + 1, ?), layout = layout + ?,
				sync_status = CASE WHEN registered_at IS NULL THEN sync_status ELSE 'pending' END WHERE id = ?`, millis(time.Now()), n[1], n[0]); err != nil {
				return err
			}
			nodes = append(nodes, n[0])
		}
		return nil
	})
}

// tellStatuses writes the events of status changes.
func (s *Store) tellStatuses(ctx context.Context, tx *sql.Tx, changes []statusChange) error {
	told := map[int64][]int{} // by subscription, in events
	var events []newEvent
	for _, c := range changes {
		if kind, tells := c.kind(); tells {
			told[c.subscription] = append(told[c.subscription], len(events))
			events = append(events, newEvent{Event: Event{Kind: kind, At: s.clock(), SubscriptionID: c.subscription}})
		}
	}
	for ids := range chunks(idsOf(slices.Sorted(maps.Keys(told)))) {
		rows, err := tx.QueryContext(ctx, `SELECT id, user_id, limit_bytes, extra_bytes, used_bytes, expires_at FROM subscriptions WHERE id IN `+placeholders(len(ids), 1), ids...)
		_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var id, user, limit, extra, used int64
			var expires sql.NullInt64
			if err := r.Scan(&id, &user, &limit, &extra, &used, &expires); err != nil {
				return struct{}{}, err
			}
			for _, i := range told[id] {
				e := &events[i]
				e.UserID, e.data = user, factsOf(e.Kind, added(limit, extra), used, fromMillis(expires))
			}
			return struct{}{}, nil
		})
		if err != nil {
			return fmt.Errorf("read subscriptions for events: %w", err)
		}
	}
	return s.events(ctx, tx, events)
}

// factsOf returns the data of an event about the status of a subscription.
func factsOf(kind coreapi.EventKind, limit, used int64, expires *time.Time) any {
	var data struct {
		LimitBytes int64      `json:"limitBytes,omitempty"`
		UsedBytes  int64      `json:"usedBytes,omitempty"`
		ExpiresAt  *time.Time `json:"expiresAt,omitempty"`
	}
	switch kind {
	case coreapi.EventSubscriptionExpired:
		data.ExpiresAt = expires
	case coreapi.EventSubscriptionLimited:
		data.LimitBytes, data.UsedBytes = limit, used
	}
	return data
}

// kind returns the kind of event that tells of the change; told is false for none.
func (c statusChange) kind() (kind coreapi.EventKind, told bool) {
	switch {
	case c.from == c.to, c.from == Disabled:
		return "", false
	case c.to == Limited && served(c.from):
		return coreapi.EventSubscriptionLimited, true
	case c.to == Expired:
		return coreapi.EventSubscriptionExpired, true
	case served(c.to) && !served(c.from):
		return coreapi.EventSubscriptionRenewed, true
	}
	return "", false
}
