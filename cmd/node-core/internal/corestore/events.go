package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// AddSessionEvents stores a batch of online and offline events. key is the batch's
// Idempotency-Key or empty.
func (s *Store) AddSessionEvents(ctx context.Context, nodeID int64, key string, events []wire.SessionEvent) error {
	return s.applyOnce(ctx, nodeID, wire.PathSessionEvents, key, func(tx *sql.Tx) error {
		for _, e := range events {
			if _, err := tx.ExecContext(ctx, `
				INSERT INTO session_events (node_id, user_id, protocol, event_type, occurred_at, ip_address) VALUES (?, ?, ?, ?, ?, ?)`,
				nodeID, e.UserID, e.Protocol, e.EventType, millis(e.OccurredAt), e.IPAddress); err != nil {
				return fmt.Errorf("store session event: %w", err)
			}
			if err := noteOnline(ctx, tx, nodeID, e); err != nil {
				return err
			}
		}
		return s.tellFirstConnected(ctx, tx, nodeID, events)
	})
}

// EventRow is one stored session event and the node that sent it.
type EventRow = coreapi.EventRow

// Events returns the newest stored session events, at most limit, in the order in which
// Core received them.
func (s *Store) Events(ctx context.Context, limit int) ([]EventRow, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id, user_id, protocol, event_type, occurred_at, ip_address FROM
		(SELECT * FROM session_events ORDER BY id DESC LIMIT ?) newest ORDER BY id`, limit)
	return collect(rows, err, func(r *sql.Rows) (EventRow, error) {
		var row EventRow
		var at int64
		err := r.Scan(&row.NodeID, &row.UserID, &row.Protocol, &row.EventType, &at, &row.IPAddress)
		row.OccurredAt = time.UnixMilli(at).UTC()
		return row, err
	})
}
