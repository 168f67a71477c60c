package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// statusChange is a subscription whose status has become another one.
type statusChange struct {
	subscription, group int64
	from, to            string
}

// served reports whether nodes let in a subscription with the status.
func served(status string) bool { return status == Active || status == OnHold }

// noteStatuses notes that the statuses of subscriptions have changed, in the transaction of the
// change: the nodes concerned get another document soon. All changes by the clock and by usage
// rows come here.
//
// nodes are others that are to get a document.
func (s *Store) noteStatuses(ctx context.Context, tx *sql.Tx, changes []statusChange, nodes ...int64) error {
	var groups []int64
	for _, c := range changes {
		if served(c.from) != served(c.to) {
			groups = append(groups, c.group)
		}
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
// revision was raised within documentEvery waits. A revision is the time at which it was raised;
// one in the future is of before the clock was set back.
func (s *Store) raiseDue(ctx context.Context, now time.Time) (nodes []int64, err error) {
	due := `FROM due_nodes WHERE node_id IN (SELECT id FROM nodes WHERE revision <= ?1 OR revision > ?2)`
	last := millis(now.Add(-documentEvery))
	var some bool
	if err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 `+due+`)`, last, millis(now)).Scan(&some); err != nil || !some {
		return nil, err
	}
	return nodes, s.inTransaction(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `DELETE `+due+` RETURNING node_id`, last, millis(now))
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
