package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// NodeStatus is how a node said last that it is.
type NodeStatus = coreapi.NodeStatus

// SetStatus replaces what the node said before.
func (s *Store) SetStatus(ctx context.Context, nodeID int64, status wire.StatusRequest) error {
	body, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("encode the status of a node: %w", err)
	}
	_, err = s.write.ExecContext(ctx, `INSERT INTO node_status (node_id, body, at) VALUES (?, ?, ?)
		ON CONFLICT (node_id) DO UPDATE SET body = excluded.body, at = excluded.at`, nodeID, string(body), millis(time.Now()))
	return err
}

// Status returns how the node said last that it is; nil where it never did.
func (s *Store) Status(ctx context.Context, nodeID int64) (*NodeStatus, error) {
	var body string
	var at int64
	err := s.read.QueryRowContext(ctx, `SELECT body, at FROM node_status WHERE node_id = ?`, nodeID).Scan(&body, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	status := NodeStatus{At: time.UnixMilli(at).UTC()}
	if err := json.Unmarshal([]byte(body), &status.StatusRequest); err != nil {
		return nil, fmt.Errorf("read the status of node %d: %w", nodeID, err)
	}
	return &status, nil
}
