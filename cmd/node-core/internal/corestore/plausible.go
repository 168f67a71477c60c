package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"nodeagent/coreclient/wire"
)

// plausibleRate is how many bytes a second one subscription may move over one node, both directions
// together, before its rows are flagged: 100 Gbit/s.
const plausibleRate = 100e9 / 8

// plausible is what one subscription may move over one node in a time, which is a minute at least.
func plausible(since time.Duration) int64 {
	return int64(max(since, time.Minute).Seconds() * plausibleRate)
}

// batchOf is what a batch has of one subscription.
type batchOf struct {
	bytes  int64
	newest time.Time
}

// implausible returns the subscriptions of which a batch has more bytes than the node can have moved
// since its last row of them: a node that was away sends a month in one row, and a node that lies sends it
// each minute. The rows count, and are flagged. Without such a batch nothing is read: no
// subscription moves as much in a minute. Rows of a subscription that the node does not serve are
// implausible then, and so is more than farPast can have: Core looks for no earlier rows of these.
func (s *Store) implausible(ctx context.Context, nodeID int64, entries []wire.UsageEntry) (map[int64]bool, error) {
	batches := map[int64]batchOf{}
	for _, e := range entries {
		b := batches[subscriptionID(e)]
		b.bytes = added(b.bytes, added(e.BytesUp, e.BytesDown))
		if e.RecordedAt.After(b.newest) {
			b.newest = e.RecordedAt
		}
		batches[subscriptionID(e)] = b
	}
	var suspects []any
	for id, b := range batches {
		if b.bytes > plausible(time.Minute) {
			suspects = append(suspects, id)
		}
	}
	if len(suspects) == 0 {
		return nil, nil
	}
	var begin int64 // the node's first moment
	err := s.read.QueryRowContext(ctx, `SELECT created_at FROM nodes WHERE id = ?`, nodeID).Scan(&begin)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil // late rows of a node that was removed
	}
	if err != nil {
		return nil, fmt.Errorf("read since when there is node %d: %w", nodeID, err)
	}
	flagged := map[int64]bool{}
	for some := range slices.Chunk(suspects, rowsPerStatement) {
		served, err := s.servedOn(ctx, nodeID, some)
		if err != nil {
			return nil, err
		}
		var asked []any
		from := int64(maxSum)
		for _, id := range some {
			b := batches[id.(int64)]
			if flagged[id.(int64)] = !served[id.(int64)] || b.bytes > plausible(farPast); !flagged[id.(int64)] {
				asked, from = append(asked, id), min(from, b.from())
			}
		}
		last, err := s.lastRows(ctx, nodeID, asked, from)
		if err != nil {
			return nil, err
		}
		for _, id := range asked {
			b := batches[id.(int64)]
			since := max(begin, last[id.(int64)])
			flagged[id.(int64)] = b.bytes > plausible(b.newest.Sub(time.UnixMilli(since)))
		}
	}
	return flagged, nil
}

// from returns the moment, in Unix milliseconds, since which all the bytes can have been moved. A row of
// before is no sign against them. There are at most as many bytes as farPast can have.
func (b batchOf) from() int64 {
	return millis(b.newest) - int64(float64(b.bytes)/plausibleRate*1000)
}

// servedOn returns which of the subscriptions have a group that reaches the node.
func (s *Store) servedOn(ctx context.Context, nodeID int64, subscriptions []any) (map[int64]bool, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT s.id FROM subscriptions s WHERE s.id IN `+placeholders(len(subscriptions), 1)+` AND
		(EXISTS (SELECT 1 FROM access_groups g WHERE g.id = s.group_id AND g.everything = 1)
		OR EXISTS (SELECT 1 FROM group_nodes g WHERE g.group_id = s.group_id AND g.node_id = ?)
		OR EXISTS (SELECT 1 FROM group_protocols g JOIN node_protocols p ON p.id = g.protocol_id WHERE g.group_id = s.group_id AND p.node_id = ?))`,
		append(slices.Clone(subscriptions), nodeID, nodeID)...)
	served := map[int64]bool{}
	if _, err := collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id int64
		err := r.Scan(&id)
		served[id] = true
		return struct{}{}, err
	}); err != nil {
		return nil, fmt.Errorf("read which subscriptions node %d serves: %w", nodeID, err)
	}
	return served, nil
}

// lastRows returns the times of the node's last rows of subscriptions since a moment, in Unix milliseconds.
func (s *Store) lastRows(ctx context.Context, nodeID int64, subscriptions []any, from int64) (map[int64]int64, error) {
	if len(subscriptions) == 0 {
		return nil, nil
	}
	rows, err := s.read.QueryContext(ctx, `SELECT subscription_id, max(recorded_at) FROM usage
		WHERE node_id = ? AND recorded_at >= ? AND subscription_id IN `+placeholders(len(subscriptions), 1)+` GROUP BY subscription_id`,
		append([]any{nodeID, from}, subscriptions...)...)
	if err != nil {
		return nil, fmt.Errorf("read the last rows of node %d: %w", nodeID, err)
	}
	defer rows.Close()
	last := map[int64]int64{}
	for rows.Next() {
		var id, at int64
		if err := rows.Scan(&id, &at); err != nil {
			return nil, fmt.Errorf("read the last rows of node %d: %w", nodeID, err)
		}
		last[id] = at
	}
	return last, rows.Err()
}
