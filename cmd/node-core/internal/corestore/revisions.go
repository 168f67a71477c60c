package corestore

import (
	"context"
	"database/sql"
	"strconv"
	"time"

	"nodeagent/coreclient/wire"
)

// Revision returns the one that the node should run.
func (s *Store) Revision(ctx context.Context, nodeID int64) (revision int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT revision FROM nodes WHERE id = ?`, nodeID).Scan(&revision)
	return revision, orNotFound(err, "node", nodeID)
}

// NodeRows reads all that a node's configuration is made of. The revision is
// read first: rows that are newer than it lead to one more sync, never to a
// missed one.
func (s *Store) NodeRows(ctx context.Context, nodeID int64) (node Node, p []Protocol, o []Outbound, subs []Subscription, err error) {
	row := s.read.QueryRowContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE id = ?`, nodeID)
	if node, err = scanNode(row); err != nil {
		return node, nil, nil, nil, orNotFound(err, "node", strconv.FormatInt(nodeID, 10))
	}
	if p, err = s.Protocols(ctx, nodeID); err != nil {
		return node, nil, nil, nil, err
	}
	if o, err = s.Outbounds(ctx, nodeID); err != nil {
		return node, nil, nil, nil, err
	}
	subs, err = s.Subscriptions(ctx)
	return node, p, o, subs, err
}

// raiseRevision gives the node a new revision, and all nodes one for node 0. It returns
// the nodes.
func raiseRevision(ctx context.Context, tx *sql.Tx, nodeID int64) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, `UPDATE nodes SET revision = revision + 1,
		sync_status = CASE WHEN registered_at IS NULL THEN sync_status ELSE 'pending' END
		WHERE ? = 0 OR id = ? RETURNING id`, nodeID, nodeID)
	return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
}

// Applied notes that the node runs the revision. One that Core has already
// gone beyond does not make the node synced.
func (s *Store) Applied(ctx context.Context, nodeID int64, key string, revision int64) error {
	return s.applyOnce(ctx, nodeID, wire.PathApplied, key, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE nodes SET applied_revision = ?, status = 'online', last_seen_at = ?,
			sync_status = CASE WHEN revision = ? THEN 'synced' ELSE 'pending' END WHERE id = ?`,
			revision, millis(time.Now()), revision, nodeID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE node_protocols SET status = 'active' WHERE node_id = ?
			AND (SELECT revision FROM nodes WHERE id = ?) = ?`, nodeID, nodeID, revision)
		return err
	})
}
