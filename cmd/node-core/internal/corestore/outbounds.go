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

// Outbound is one outbound of a node and its traffic in bytes.
type Outbound = coreapi.Outbound

// PutOutbound adds an outbound, or replaces the one with the same tag, and raises the node's
// revision. The traffic of a replaced outbound is kept.
func (s *Store) PutOutbound(ctx context.Context, o Outbound) (Outbound, error) {
	return o, s.inTransaction(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `INSERT INTO node_outbounds (node_id, tag, config, created_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (node_id, tag) DO UPDATE SET config = excluded.config RETURNING id`,
			o.NodeID, o.Tag, string(o.Config), millis(time.Now())).Scan(&o.ID)
		if err != nil {
			return err
		}
		_, err = raiseRevision(ctx, tx, o.NodeID)
		return err
	})
}

const outboundColumns = `id, node_id, tag, config, traffic_bytes_up, traffic_bytes_down, disabled`

func scanOutbound(row interface{ Scan(...any) error }) (o Outbound, err error) {
	var config sql.NullString
	err = row.Scan(&o.ID, &o.NodeID, &o.Tag, &config, &o.TrafficBytesUp, &o.TrafficBytesDown, &o.Disabled)
	o.Config = json.RawMessage(config.String)
	return o, err
}

var listedOutbounds = listing[Outbound]{
	what: "outbounds", table: "node_outbounds", columns: outboundColumns, id: func(o Outbound) int64 { return o.ID },
	scan: scanOutbound,
}

// Outbounds returns the outbounds of a node, also removed ones. Node 0 means all nodes.
func (s *Store) Outbounds(ctx context.Context, nodeID int64) ([]Outbound, error) {
	outbounds, _, err := s.ListOutbounds(ctx, nodeID, List{})
	return outbounds, err
}

// ListOutbounds returns a page of the outbounds of a node, also removed ones. Node 0 means all
// nodes.
func (s *Store) ListOutbounds(ctx context.Context, nodeID int64, list List) ([]Outbound, *Position, error) {
	where, args := ofNode(nodeID)
	return listedOutbounds.page(ctx, s.read, list, where, args)
}

// ErrLastOutbound means that the node would have no outbound left.
var ErrLastOutbound = errors.New("it is the node's last outbound, and without one no traffic could leave the node; add another one first")

// RemoveOutbound removes an outbound from the node's configuration and raises the node's
// revision. The outbound's traffic is kept. The last outbound is not removed
// (ErrLastOutbound).
func (s *Store) RemoveOutbound(ctx context.Context, nodeID int64, tag string) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		var id int64
		if err := notTheLast(ctx, tx, nodeID, tag); err != nil {
			return err
		}
		err := tx.QueryRowContext(ctx, `UPDATE node_outbounds SET config = NULL WHERE node_id = ? AND tag = ?
			AND config IS NOT NULL RETURNING id`, nodeID, tag).Scan(&id)
		if err := orNotFound(err, "outbound", tag); err != nil {
			return err
		}
		_, err = raiseRevision(ctx, tx, nodeID)
		return err
	})
}

// notTheLast returns ErrLastOutbound where the node has no other outbound that is in its
// configuration.
func notTheLast(ctx context.Context, tx *sql.Tx, nodeID int64, tag string) error {
	var others int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM node_outbounds WHERE node_id = ? AND tag != ? AND config IS NOT NULL AND disabled = 0`,
		nodeID, tag).Scan(&others); err != nil {
		return err
	}
	if others == 0 {
		return ErrLastOutbound
	}
	return nil
}

// EditOutbound changes the tag and the object of an outbound that the node has, or enables or
// disables it, and raises the node's revision. Its traffic stays with it. The last outbound is not
// disabled (ErrLastOutbound).
func (s *Store) EditOutbound(ctx context.Context, nodeID int64, tag string, edit func(*Outbound) error) (o Outbound, err error) {
	return o, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if o, err = scanOutbound(tx.QueryRowContext(ctx, `SELECT `+outboundColumns+` FROM node_outbounds WHERE node_id = ? AND tag = ? AND config IS NOT NULL`, nodeID, tag)); err != nil {
			return orNotFound(err, "outbound", tag)
		}
		if err := edit(&o); err != nil {
			return err
		}
		if o.Disabled {
			if err := notTheLast(ctx, tx, nodeID, tag); err != nil {
				return err
			}
		}
		var taken bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM node_outbounds WHERE node_id = ? AND tag = ? AND id != ?)`, nodeID, o.Tag, o.ID).Scan(&taken); err != nil {
			return err
		}
		if taken { // also a removed one, whose traffic has that name
			return fmt.Errorf("outbound %q on this node: %w", o.Tag, ErrExists)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE node_outbounds SET tag = ?, config = ?, disabled = ? WHERE id = ?`, o.Tag, string(o.Config), o.Disabled, o.ID); err != nil {
			return err
		}
		_, err = raiseRevision(ctx, tx, nodeID)
		return err
	})
}

// maxOutbounds bounds how many tags a node can make by naming them.
const maxOutbounds = 1000

// AddOutboundUsage adds a batch of traffic to the counters of the node's outbounds. A tag
// that the node does not have gets a row without a configuration, as long as there are no
// more than maxOutbounds; left counts the rows beyond that, which are left out. key is the
// batch's Idempotency-Key or empty.
func (s *Store) AddOutboundUsage(ctx context.Context, nodeID int64, key string, items []wire.OutboundUsageItem) (left int, err error) {
	return left, s.applyOnce(ctx, nodeID, wire.PathOutboundUsage, key, func(tx *sql.Tx) error {
		left = 0
		rows, err := tx.QueryContext(ctx, `SELECT tag FROM node_outbounds WHERE node_id = ?`, nodeID)
		tags, err := collect(rows, err, func(r *sql.Rows) (tag string, err error) { return tag, r.Scan(&tag) })
		if err != nil {
			return fmt.Errorf("read outbounds: %w", err)
		}
		known := map[string]bool{}
		for _, tag := range tags {
			known[tag] = true
		}
		for _, item := range items {
			if !known[item.Tag] && len(known) >= maxOutbounds {
				left++
				continue
			}
			known[item.Tag] = true
			if _, err := tx.ExecContext(ctx, `
				INSERT INTO node_outbounds (node_id, tag, traffic_bytes_up, traffic_bytes_down, created_at) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (node_id, tag) DO UPDATE SET traffic_bytes_up = `+plus("node_outbounds.traffic_bytes_up", "excluded.traffic_bytes_up")+`,
					traffic_bytes_down = `+plus("node_outbounds.traffic_bytes_down", "excluded.traffic_bytes_down"),
				nodeID, item.Tag, item.BytesUp, item.BytesDown, millis(time.Now())); err != nil {
				return fmt.Errorf("store outbound usage: %w", err)
			}
		}
		return nil
	})
}
