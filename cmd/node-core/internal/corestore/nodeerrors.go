package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// maxErrors bounds how many errors of a node are kept, the newest.
const maxErrors = 1000

// AddError stores an error that the node reported and marks the node as failed. Where
// details names the tag of an inbound, that inbound is marked as failed too. key is the
// report's Idempotency-Key or empty.
func (s *Store) AddError(ctx context.Context, nodeID int64, key string, e wire.ErrorRequest) error {
	details, err := json.Marshal(e.Details)
	if err != nil {
		return fmt.Errorf("encode details: %w", err)
	}
	tag, _ := e.Details["tag"].(string)
	parts, refused := refusedTags(e.Details)
	return s.applyOnce(ctx, nodeID, wire.PathError, key, func(tx *sql.Tx) error {
		at := time.Now()
		now := millis(at)
		if _, err := tx.ExecContext(ctx, `INSERT INTO node_errors (node_id, code, message, details, at) VALUES (?, ?, ?, ?, ?)`,
			nodeID, e.Code, e.Message, string(details), now); err != nil {
			return err
		}
		if err := storeRefusals(ctx, tx, nodeID, e, now); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM node_errors WHERE node_id = ?1 AND id <=
			(SELECT id FROM node_errors WHERE node_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, nodeID, maxErrors); err != nil {
			return err
		}
		status := "error"
		if len(parts) > 0 {
			status = "degraded"
		}
		if _, err := tx.ExecContext(ctx, `UPDATE nodes SET status = ?, sync_status = 'failed', last_error = ?,
			last_error_code = ?, last_error_at = ? WHERE id = ?`, status, e.Message, e.Code, now, nodeID); err != nil {
			return err
		}
		if err := s.tellState(ctx, tx, nodeID, at); err != nil {
			return err
		}
		if len(parts) == 0 {
			_, err := tx.ExecContext(ctx, `UPDATE node_protocols SET status = 'failed' WHERE node_id = ? AND tag = ?`, nodeID, tag)
			return err
		}
		return failProtocols(ctx, tx, nodeID, refused)
	})
}

// refusedTags returns the tags of the inbounds that a report names among the parts that the
// node refuses. parts is nil for a report about something else.
func refusedTags(details map[string]any) (parts []any, tags map[string]bool) {
	parts, _ = details["parts"].([]any)
	tags = map[string]bool{}
	for _, p := range parts {
		part, _ := p.(map[string]any)
		kind, _ := part["kind"].(string)
		if tag, _ := part["tag"].(string); kind == "inbound" || kind == "mtproto" {
			tags[tag] = true
		}
	}
	return parts, tags
}

// failProtocols marks the inbounds that the node refuses as failed, and the others as
// active: a report names all parts that are refused. An inbound whose status stays is not written:
// links are made anew after each change of a status.
func failProtocols(ctx context.Context, tx *sql.Tx, nodeID int64, refused map[string]bool) error {
	type inbound struct {
		id          int64
		tag, status string
	}
	rows, err := tx.QueryContext(ctx, `SELECT id, tag, status FROM node_protocols WHERE node_id = ?`, nodeID)
	all, err := collect(rows, err, func(r *sql.Rows) (p inbound, err error) { return p, r.Scan(&p.id, &p.tag, &p.status) })
	if err != nil {
		return err
	}
	for _, p := range all {
		status := "active"
		if refused[p.tag] {
			status = "failed"
		}
		if status == p.status {
			continue
		}
		if _, err := tx.ExecContext(ctx, `UPDATE node_protocols SET status = ? WHERE id = ?`, status, p.id); err != nil {
			return err
		}
	}
	return nil
}

// NodeError is an error that a node reported.
type NodeError = coreapi.NodeError

// NodeErrors returns the newest errors of a node, at most limit, the newest last. Node 0
// means all nodes.
func (s *Store) NodeErrors(ctx context.Context, nodeID int64, limit int) ([]NodeError, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id, at, code, message, details FROM
		(SELECT * FROM node_errors WHERE ?1 = 0 OR node_id = ?1 ORDER BY id DESC LIMIT ?2) newest ORDER BY id`, nodeID, limit)
	return collect(rows, err, func(r *sql.Rows) (NodeError, error) {
		var e NodeError
		var at int64
		var details string
		err := r.Scan(&e.NodeID, &at, &e.Code, &e.Message, &details)
		e.At, e.Details = time.UnixMilli(at).UTC(), json.RawMessage(details)
		return e, err
	})
}
