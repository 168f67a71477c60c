package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// nodeState is how a node is, in SQL: its status, and offline where nothing was heard of it since
// the time ?1. It is empty for a node that has not spoken yet.
const nodeState = `CASE WHEN last_seen_at IS NULL THEN '' WHEN ` + lastSeen + ` < ?1 THEN 'offline' ELSE status END`

// kindOfState has the kind of the event for each state.
var kindOfState = map[string]coreapi.EventKind{
	"online": coreapi.EventNodeOnline, "degraded": coreapi.EventNodeDegraded, "error": coreapi.EventNodeError, "offline": coreapi.EventNodeOffline,
}

// tellPause is the least time between two events about one node's state: a node that reports errors
// without end writes no more. WatchNodes tells of the state that is left then.
const tellPause = 2 * time.Second

// tellState writes an event where the node's state is not that of its last event. It is called in the
// transaction that has changed the state.
func (s *Store) tellState(ctx context.Context, tx *sql.Tx, nodeID int64, now time.Time) error {
	var e Event
	var state, code string
	var seen sql.NullInt64
	// The UPDATE locks the row: of two instances, one changes it.
	rows, err := tx.QueryContext(ctx, `UPDATE nodes SET told = `+nodeState+`, told_at = ?2 WHERE id = ?3 AND told_at <= ?4 AND told != `+nodeState+`
		RETURNING name, told, coalesce(last_error_code, ''), `+lastSeen, millis(now.Add(-OfflineAfter)), millis(now), nodeID, millis(now.Add(-tellPause)))
	changed, err := collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		return struct{}{}, r.Scan(&e.Node, &state, &code, &seen)
	})
	if err != nil {
		return fmt.Errorf("look at the state of node %d: %w", nodeID, err)
	}
	kind, known := kindOfState[state]
	if len(changed) == 0 || !known { // a node that is registered anew has no state
		return nil
	}
	e.Kind, e.NodeID, e.At = kind, nodeID, now
	var data struct {
		Code       string     `json:"code,omitempty"`
		LastSeenAt *time.Time `json:"lastSeenAt,omitempty"`
	}
	switch state {
	case "degraded", "error":
		data.Code = code
	case "offline":
		data.LastSeenAt = fromMillis(seen)
	}
	return s.event(ctx, tx, e, data)
}

// lookEvery is how often WatchNodes looks. A node is offline after OfflineAfter.
const lookEvery = 5 * time.Second

// WatchNodes writes events for nodes that go offline, until ctx ends: nobody says when. Where several
// instances look, one of them writes each event. failed gets an error, after which WatchNodes goes on.
func (s *Store) WatchNodes(ctx context.Context, failed func(error)) {
	start := time.Now()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now, since := time.Now(), time.Time{}
		// Nodes that could not reach Core while it did not run get the time to do so.
		if now.Sub(start) < OfflineAfter {
			since = start
		}
		if err := s.lookAtNodes(ctx, now, since); err != nil && ctx.Err() == nil {
			failed(err)
		}
		if err := s.seenFailure(); err != nil {
			failed(err)
		}
	}
}

// lookAtNodes writes events for the nodes whose state is not that of their last event, and of which
// something was heard since a time; the zero time for all.
func (s *Store) lookAtNodes(ctx context.Context, now, since time.Time) error {
	if err := s.boundSeen(ctx, now); err != nil {
		return err
	}
	untold := func(db querier) ([]int64, error) {
		rows, err := db.QueryContext(ctx, `SELECT id FROM nodes WHERE told != `+nodeState+` AND `+lastSeen+` >= ?2 ORDER BY id`,
			millis(now.Add(-OfflineAfter)), max(0, millis(since)))
		return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
	}
	// Most looks find nothing, and take no write connection.
	nodes, err := untold(s.read)
	if err != nil || len(nodes) == 0 {
		return errorAbout(err, "look for nodes in another state")
	}
	if err := s.storeSeen(ctx); err != nil { // what is in memory counts
		return err
	}
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		nodes, err := untold(tx)
		if err != nil {
			return errorAbout(err, "look for nodes in another state")
		}
		for _, id := range nodes {
			if err := s.tellState(ctx, tx, id, now); err != nil {
				return err
			}
		}
		return nil
	})
}

func errorAbout(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// tellFirstConnected writes an event for each user that a batch of session events shows online for the
// first time.
func (s *Store) tellFirstConnected(ctx context.Context, tx *sql.Tx, nodeID int64, events []wire.SessionEvent) error {
	first := map[int64]time.Time{}
	for _, e := range events {
		if at, is := first[e.UserID]; e.EventType == wire.Online && (!is || e.OccurredAt.Before(at)) {
			first[e.UserID] = e.OccurredAt
		}
	}
	// In the order of the ids: two batches of which each waits for the other would wait for a second.
	for _, id := range slices.Sorted(maps.Keys(first)) {
		result, err := tx.ExecContext(ctx, `UPDATE users SET first_connected_at = ? WHERE id = ? AND first_connected_at IS NULL`, millis(first[id]), id)
		if err != nil {
			return fmt.Errorf("note when user %d connected first: %w", id, err)
		}
		if n, err := result.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			continue
		}
		if err := s.event(ctx, tx, Event{Kind: coreapi.EventFirstConnected, UserID: id, NodeID: nodeID}, nil); err != nil {
			return err
		}
	}
	return nil
}
