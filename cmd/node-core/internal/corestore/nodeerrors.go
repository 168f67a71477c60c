package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
)

// AddError stores an error that the node reported and marks the node as failed. Where
// details names the tag of an inbound, that inbound is marked as failed too. key is the
// report's Idempotency-Key or empty.
func (s *Store) AddError(ctx context.Context, nodeID int64, key string, e wire.ErrorRequest) error {
	details, err := json.Marshal(e.Details)
	if err != nil {
		return fmt.Errorf("encode details: %w", err)
	}
	tag, _ := e.Details["tag"].(string)
	return s.applyOnce(ctx, nodeID, wire.PathError, key, func(tx *sql.Tx) error {
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

// NodeError is an error that a node reported.
type NodeError struct {
	NodeID  int64           `json:"nodeId"`
	At      time.Time       `json:"at"` // when Core received it, UTC
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Details json.RawMessage `json:"details"` // JSON object or null, as the node sent it: for example the tag, the port, warnings
}

// NodeErrors returns the newest errors of a node, at most limit, the newest last. Node 0
// means all nodes.
func (s *Store) NodeErrors(ctx context.Context, nodeID int64, limit int) ([]NodeError, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id, at, code, message, details FROM
		(SELECT * FROM node_errors WHERE ?1 = 0 OR node_id = ?1 ORDER BY id DESC LIMIT ?2) ORDER BY id`, nodeID, limit)
	return collect(rows, err, func(r *sql.Rows) (NodeError, error) {
		var e NodeError
		var at int64
		var details string
		err := r.Scan(&e.NodeID, &at, &e.Code, &e.Message, &details)
		e.At, e.Details = time.UnixMilli(at).UTC(), json.RawMessage(details)
		return e, err
	})
}
