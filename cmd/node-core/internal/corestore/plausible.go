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
// subscription moves as much in a minute.
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
	var begin int64 // of a node that has sent nothing yet; 0 for one that was removed, whose late rows count
	err := s.read.QueryRowContext(ctx, `SELECT created_at FROM nodes WHERE id = ?`, nodeID).Scan(&begin)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read since when there is node %d: %w", nodeID, err)
	}
	flagged := map[int64]bool{}
	for some := range slices.Chunk(suspects, rowsPerStatement) {
		last, err := s.lastRows(ctx, nodeID, some)
		if err != nil {
			return nil, err
		}
		for _, id := range some {
			b := batches[id.(int64)]
			since, has := last[id.(int64)]
			if !has {
				since = begin
			}
			if b.bytes > plausible(min(b.newest.Sub(time.UnixMilli(since)), farPast)) {
				flagged[id.(int64)] = true
			}
		}
	}
	return flagged, nil
}

// lastRows returns the times of the node's last rows of subscriptions, in milliseconds.
func (s *Store) lastRows(ctx context.Context, nodeID int64, subscriptions []any) (map[int64]int64, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT subscription_id, max(recorded_at) FROM usage
		WHERE node_id = ? AND subscription_id IN `+placeholders(len(subscriptions), 1)+` GROUP BY subscription_id`, append([]any{nodeID}, subscriptions...)...)
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
