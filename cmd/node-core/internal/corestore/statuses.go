package corestore

import (
	"context"
	"database/sql"
	"fmt"
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
// nodes are others that are to get a document.
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
	return noteDue(ctx, tx, groups, nodes)
}

// noteDue writes down that nodes are to get another document: those, and the ones that the groups reach. The
// revisions are raised by raiseDue, soon and once for many changes, and not here: batches of
// usage rows would wait for each other's nodes, and a node would get a document for each of them.
//
// One statement takes the rows in the order of their ids, so that no two batches wait for each
// other, and locks those that are there: raiseDue, which takes a row away, waits for this change.
func noteDue(ctx context.Context, tx *sql.Tx, groups, nodes []int64) error {
	if len(groups) == 0 && len(nodes) == 0 {
		return nil
	}
	reached, args := reachedBy(groups)
	in, ids := inList(nodes)
	if _, err := tx.ExecContext(ctx, `INSERT INTO due_nodes (node_id) SELECT id FROM nodes WHERE `+reached+` OR id IN `+in+`
		ORDER BY id ON CONFLICT (node_id) DO UPDATE SET node_id = excluded.node_id`, append(args, ids...)...); err != nil {
		return fmt.Errorf("note which nodes are to get another document: %w", err)
	}
	return nil
}

// raiseDue raises the revisions of the nodes that are due, and returns those nodes. A node whose
// revision was raised within documentEvery waits. A revision is the time at which it was raised, or a
// little more; one further in the future is of before the clock was set back.
func (s *Store) raiseDue(ctx context.Context, now time.Time) (nodes []int64, err error) {
	due := `FROM due_nodes WHERE node_id IN (SELECT id FROM nodes WHERE revision <= ?1 OR revision > ?2)`
	last, future := millis(now.Add(-documentEvery)), millis(now.Add(documentEvery))
	var some bool
	if err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 `+due+`)`, last, future).Scan(&some); err != nil || !some {
		return nil, err
	}
	return nodes, s.inTransaction(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `DELETE `+due+` RETURNING node_id`, last, future)
		ids, err := collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
		if err != nil {
			return err
		}
		nodes = nil
		for _, id := range ids {
			raised, err := raiseRevision(ctx, tx, id)
			if err != nil {
				return err
			}
			nodes = append(nodes, raised...)
		}
		return nil
	})
}

// tellStatuses writes the events of status changes.
func (s *Store) tellStatuses(ctx context.Context, tx *sql.Tx, changes []statusChange) error {
	for _, c := range changes {
		kind, told := c.kind()
		if !told {
			continue
		}
		e := Event{Kind: kind, At: s.clock(), SubscriptionID: c.subscription}
		var data struct {
			LimitBytes int64      `json:"limitBytes,omitempty"`
			UsedBytes  int64      `json:"usedBytes,omitempty"`
			ExpiresAt  *time.Time `json:"expiresAt,omitempty"`
		}
		var extra int64
		var expires sql.NullInt64
		if err := tx.QueryRowContext(ctx, `SELECT user_id, limit_bytes, extra_bytes, used_bytes, expires_at FROM subscriptions WHERE id = ?`, c.subscription).
			Scan(&e.UserID, &data.LimitBytes, &extra, &data.UsedBytes, &expires); err != nil {
			return fmt.Errorf("read subscription %d for an event: %w", c.subscription, err)
		}
		data.LimitBytes = added(data.LimitBytes, extra)
		if kind == coreapi.EventSubscriptionExpired {
			data.ExpiresAt = fromMillis(expires)
		}
		if kind != coreapi.EventSubscriptionLimited {
			data.LimitBytes, data.UsedBytes = 0, 0
		}
		if err := s.event(ctx, tx, e, data); err != nil {
			return err
		}
	}
	return nil
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
