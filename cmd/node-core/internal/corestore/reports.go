package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
)

const (
	// keyLife is how long a batch's key is kept: longer than an agent goes on
	// trying, which is a month.
	keyLife = 60 * 24 * time.Hour
	// farAway is from when on a row's minute is flagged: its clock was wrong,
	// or it waited longer than an agent keeps rows apart.
	farFuture = 10 * time.Minute
	farPast   = 45 * 24 * time.Hour
)

// errSeen ends a transaction whose batch was taken before.
var errSeen = errors.New("the batch was taken before")

// once runs f in a transaction, unless the node sent a batch with that key
// before: then nothing changes, and the answer is the same.
func (s *Store) once(ctx context.Context, nodeID int64, route, key string, f func(tx *sql.Tx) error) error {
	err := s.change(ctx, func(tx *sql.Tx) error {
		if key != "" {
			result, err := tx.ExecContext(ctx, `INSERT INTO idempotency_keys (node_id, key, route, created_at)
				VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, nodeID, key, route, millis(time.Now()))
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
				return errSeen
			}
		}
		return f(tx)
	})
	if errors.Is(err, errSeen) {
		return nil
	}
	return err
}

// ForgetOldKeys removes the keys that no agent uses any more.
func (s *Store) ForgetOldKeys(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE created_at < ?`, millis(time.Now().Add(-keyLife)))
	return err
}

// AddUsage stores a batch of usage rows and adds them to the subscriptions'
// counters. A row that exists already grows: an agent may send a minute in two
// parts.
func (s *Store) AddUsage(ctx context.Context, nodeID int64, key string, entries []wire.UsageEntry) error {
	rows, err := usageRows(entries, time.Now())
	if err != nil {
		return err
	}
	return s.once(ctx, nodeID, wire.PathUsage, key, func(tx *sql.Tx) error {
		// One statement for the whole batch: the rows come as one JSON value.
		if _, err := tx.ExecContext(ctx, `
			INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
			SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 FROM json_each(?) WHERE true
			ON CONFLICT DO UPDATE SET bytes_up = bytes_up + excluded.bytes_up, bytes_down = bytes_down + excluded.bytes_down`,
			nodeID, rows); err != nil {
			return fmt.Errorf("store usage: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `
			UPDATE subscriptions SET bytes_up = bytes_up + sums.up, bytes_down = bytes_down + sums.down
			FROM (SELECT value ->> 2 AS id, sum(value ->> 4) AS up, sum(value ->> 5) AS down FROM json_each(?) GROUP BY 1) AS sums
			WHERE subscriptions.id = sums.id`, rows); err != nil {
			return fmt.Errorf("add to subscriptions: %w", err)
		}
		return nil
	})
}

// usageRows writes the entries as JSON arrays, in the order that AddUsage reads.
func usageRows(entries []wire.UsageEntry, now time.Time) (string, error) {
	rows := make([][7]int64, len(entries))
	for i, e := range entries {
		row := [7]int64{millis(e.RecordedAt), e.UserID, 0, e.NodeProtocolID, e.BytesUp, e.BytesDown, 0}
		if e.SubscriptionID != nil {
			row[2] = *e.SubscriptionID
		}
		if e.RecordedAt.After(now.Add(farFuture)) || e.RecordedAt.Before(now.Add(-farPast)) {
			row[6] = 1
		}
		rows[i] = row
	}
	raw, err := json.Marshal(rows)
	if err != nil {
		return "", fmt.Errorf("encode usage: %w", err)
	}
	return string(raw), nil
}

// AddOutboundUsage adds to the outbounds' counters.
func (s *Store) AddOutboundUsage(ctx context.Context, nodeID int64, key string, items []wire.OutboundUsageItem) error {
	return s.once(ctx, nodeID, wire.PathOutboundUsage, key, func(tx *sql.Tx) error {
		for _, item := range items {
			if _, err := tx.ExecContext(ctx, `
				INSERT INTO node_outbounds (node_id, tag, traffic_bytes_up, traffic_bytes_down, created_at) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (node_id, tag) DO UPDATE SET traffic_bytes_up = traffic_bytes_up + excluded.traffic_bytes_up,
					traffic_bytes_down = traffic_bytes_down + excluded.traffic_bytes_down`,
				nodeID, item.Tag, item.BytesUp, item.BytesDown, millis(time.Now())); err != nil {
				return fmt.Errorf("store outbound usage: %w", err)
			}
		}
		return nil
	})
}

// AddSessionEvents stores who came and went.
func (s *Store) AddSessionEvents(ctx context.Context, nodeID int64, key string, events []wire.SessionEvent) error {
	return s.once(ctx, nodeID, wire.PathSessionEvents, key, func(tx *sql.Tx) error {
		for _, e := range events {
			if _, err := tx.ExecContext(ctx, `
				INSERT INTO session_events (node_id, user_id, protocol, event_type, occurred_at, ip_address) VALUES (?, ?, ?, ?, ?, ?)`,
				nodeID, e.UserID, e.Protocol, e.EventType, millis(e.OccurredAt), e.IPAddress); err != nil {
				return fmt.Errorf("store session event: %w", err)
			}
		}
		return nil
	})
}

// Applied notes that the node runs the revision. One that Core has already
// gone beyond does not make the node synced.
func (s *Store) Applied(ctx context.Context, nodeID int64, key string, revision int64) error {
	return s.once(ctx, nodeID, wire.PathApplied, key, func(tx *sql.Tx) error {
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

// AddError notes what went wrong on the node.
func (s *Store) AddError(ctx context.Context, nodeID int64, key string, e wire.ErrorRequest) error {
	details, err := json.Marshal(e.Details)
	if err != nil {
		return fmt.Errorf("encode details: %w", err)
	}
	tag, _ := e.Details["tag"].(string)
	return s.once(ctx, nodeID, wire.PathError, key, func(tx *sql.Tx) error {
		now := millis(time.Now())
		if _, err := tx.ExecContext(ctx, `INSERT INTO node_errors (node_id, code, message, details, at) VALUES (?, ?, ?, ?, ?)`,
			nodeID, e.Code, e.Message, string(details), now); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE nodes SET status = 'error', sync_status = 'failed', last_error = ?,
			last_error_code = ?, last_error_at = ? WHERE id = ?`, e.Message, e.Code, now, nodeID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE node_protocols SET status = 'failed' WHERE node_id = ? AND tag = ?`, nodeID, tag)
		return err
	})
}

// UsageRow is one stored row, with the member names of the contract.
type UsageRow struct {
	NodeID int64 `json:"nodeId"`
	wire.UsageEntry
	Flagged bool `json:"flagged,omitempty"` // its minute is far from when it came
}

// Usage returns the stored rows, the newest first, at most limit.
func (s *Store) Usage(ctx context.Context, limit int) ([]UsageRow, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id, user_id, nullif(subscription_id, 0), node_protocol_id, bytes_up, bytes_down, recorded_at, flagged
		FROM usage ORDER BY recorded_at DESC, node_id, user_id LIMIT ?`, limit)
	return many(rows, err, func(r *sql.Rows) (UsageRow, error) {
		var row UsageRow
		var at int64
		err := r.Scan(&row.NodeID, &row.UserID, &row.SubscriptionID, &row.NodeProtocolID, &row.BytesUp, &row.BytesDown, &at, &row.Flagged)
		row.RecordedAt = time.UnixMilli(at).UTC()
		return row, err
	})
}

// EventRow is one stored session event, with the member names of the contract.
type EventRow struct {
	NodeID int64 `json:"nodeId"`
	wire.SessionEvent
}

// Events returns the stored session events in the order in which they came, the
// newest limit of them.
func (s *Store) Events(ctx context.Context, limit int) ([]EventRow, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id, user_id, protocol, event_type, occurred_at, ip_address FROM
		(SELECT * FROM session_events ORDER BY id DESC LIMIT ?) ORDER BY id`, limit)
	return many(rows, err, func(r *sql.Rows) (EventRow, error) {
		var row EventRow
		var at int64
		err := r.Scan(&row.NodeID, &row.UserID, &row.Protocol, &row.EventType, &at, &row.IPAddress)
		row.OccurredAt = time.UnixMilli(at).UTC()
		return row, err
	})
}
