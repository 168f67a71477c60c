package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nodeagent/coreclient/wire"
)

const (
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

// AddUsage stores a batch of usage rows and adds them to the subscriptions'
// counters. A row that exists already grows: an agent may send a minute in two
// parts.
func (s *Store) AddUsage(ctx context.Context, nodeID int64, key string, entries []wire.UsageEntry) error {
	now := time.Now()
	return s.once(ctx, nodeID, wire.PathUsage, key, func(tx *sql.Tx) error {
		for some := range slices.Chunk(entries, rowsPerStatement) {
			if err := insertUsage(ctx, tx, nodeID, some, now); err != nil {
				return fmt.Errorf("store usage: %w", err)
			}
		}
		return addToSubscriptions(ctx, tx, entries)
	})
}

// rowsPerStatement is where a longer statement is no gain any more, measured
// with BenchmarkUsage.
const rowsPerStatement = 250

func insertUsage(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, now time.Time) error {
	args := make([]any, 0, 8*len(entries))
	for _, e := range entries {
		subscription := int64(0)
		if e.SubscriptionID != nil {
			subscription = *e.SubscriptionID
		}
		flagged := e.RecordedAt.After(now.Add(farFuture)) || e.RecordedAt.Before(now.Add(-farPast))
		args = append(args, nodeID, millis(e.RecordedAt), e.UserID, subscription, e.NodeProtocolID, e.BytesUp, e.BytesDown, flagged)
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
		VALUES `+placeholders(8, len(entries))+`
		ON CONFLICT DO UPDATE SET bytes_up = bytes_up + excluded.bytes_up, bytes_down = bytes_down + excluded.bytes_down`, args...)
	return err
}

// placeholders is "(?,?),(?,?)" for rows of so many columns.
func placeholders(columns, rows int) string {
	row := "(?" + strings.Repeat(",?", columns-1) + ")"
	return row + strings.Repeat(","+row, rows-1)
}

func addToSubscriptions(ctx context.Context, tx *sql.Tx, entries []wire.UsageEntry) error {
	sums := map[int64][2]int64{}
	for _, e := range entries {
		if e.SubscriptionID != nil {
			sum := sums[*e.SubscriptionID]
			sums[*e.SubscriptionID] = [2]int64{sum[0] + e.BytesUp, sum[1] + e.BytesDown}
		}
	}
	if len(sums) == 0 {
		return nil
	}
	update, err := tx.PrepareContext(ctx, `UPDATE subscriptions SET bytes_up = bytes_up + ?, bytes_down = bytes_down + ? WHERE id = ?`)
	if err != nil {
		return fmt.Errorf("add to subscriptions: %w", err)
	}
	defer update.Close()
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		if _, err := update.ExecContext(ctx, sums[id][0], sums[id][1], id); err != nil {
			return fmt.Errorf("add to subscription %d: %w", id, err)
		}
	}
	return nil
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

// NodeError is what a node told of, UTC.
type NodeError struct {
	NodeID  int64           `json:"nodeId"`
	At      time.Time       `json:"at"`
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Details json.RawMessage `json:"details"` // what the node added: the place, warnings
}

// NodeErrors returns what the node told of, all nodes for node 0, the newest limit of
// them, the last one last.
func (s *Store) NodeErrors(ctx context.Context, nodeID int64, limit int) ([]NodeError, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id, at, code, message, details FROM
		(SELECT * FROM node_errors WHERE ?1 = 0 OR node_id = ?1 ORDER BY id DESC LIMIT ?2) ORDER BY id`, nodeID, limit)
	return many(rows, err, func(r *sql.Rows) (NodeError, error) {
		var e NodeError
		var at int64
		var details string
		err := r.Scan(&e.NodeID, &at, &e.Code, &e.Message, &details)
		e.At, e.Details = time.UnixMilli(at).UTC(), json.RawMessage(details)
		return e, err
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
