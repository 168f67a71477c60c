package corestore

import (
	"context"
	"strconv"
)

// Revision returns the one that the node should run.
func (s *Store) Revision(ctx context.Context, nodeID int64) (revision int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT revision FROM nodes WHERE id = ?`, nodeID).Scan(&revision)
	return revision, one(err, "node", nodeID)
}

// NodeRows reads all that a node's configuration is made of. The revision is
// read first: rows that are newer than it lead to one more sync, never to a
// missed one.
func (s *Store) NodeRows(ctx context.Context, nodeID int64) (node Node, p []Protocol, o []Outbound, subs []Subscription, err error) {
	row := s.read.QueryRowContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE id = ?`, nodeID)
	if node, err = scanNode(row); err != nil {
		return node, nil, nil, nil, one(err, "node", strconv.FormatInt(nodeID, 10))
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
