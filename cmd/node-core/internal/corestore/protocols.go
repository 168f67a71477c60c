package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// Protocol is one inbound of a node, which the node routes call a protocol.
type Protocol = coreapi.Protocol

// AddProtocol adds an inbound and raises the node's revision. An inbound without a tag gets
// one of its protocol and a number, such as vless-1.
func (s *Store) AddProtocol(ctx context.Context, p Protocol) (Protocol, error) {
	err := s.inTransaction(ctx, func(tx *sql.Tx) error {
		placeholder := p.Tag
		if placeholder == "" {
			placeholder = "\x00"
		}
		id, err := nextID(ctx, tx, "node_protocols")
		if err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `INSERT INTO node_protocols (id, node_id, tag, protocol, listen, port, config, created_at)
			VALUES (?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT DO NOTHING RETURNING id, status`,
			id, p.NodeID, placeholder, p.Protocol, p.Listen, p.Port, millis(time.Now())).Scan(&p.ID, &p.Status)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("protocol %q on this node: %w", p.Tag, ErrExists)
		} else if err != nil {
			return err
		}
		if p.Tag == "" {
			if p.Tag, err = freeTag(ctx, tx, p); err != nil {
				return err
			}
		}
		link, err := json.Marshal(p.Link)
		if err != nil {
			return fmt.Errorf("encode link hints: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE node_protocols SET tag = ?, config = ?, link = ? WHERE id = ?`,
			p.Tag, string(p.Config), string(link), p.ID); err != nil {
			return err
		}
		_, err = raiseRevision(ctx, tx, p.NodeID)
		return err
	})
	return p, err
}

// freeTag returns the protocol's name with the smallest number that no tag of the node has,
// such as vless-1. It is not the id: people read it in links.
func freeTag(ctx context.Context, tx *sql.Tx, p Protocol) (string, error) {
	for n := 1; ; n++ {
		tag := fmt.Sprintf("%s-%d", p.Protocol, n)
		var taken bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM node_protocols WHERE node_id = ? AND tag = ?)`, p.NodeID, tag).Scan(&taken); err != nil {
			return "", err
		}
		if !taken {
			return tag, nil
		}
	}
}

// ProtocolID returns the id of the inbound that has the tag on the node.
func (s *Store) ProtocolID(ctx context.Context, nodeID int64, tag string) (id int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT id FROM node_protocols WHERE node_id = ? AND tag = ?`, nodeID, tag).Scan(&id)
	return id, orNotFound(err, "protocol", tag)
}

// Protocol returns the inbound of that id.
func (s *Store) Protocol(ctx context.Context, id int64) (Protocol, error) {
	p, err := scanProtocol(s.read.QueryRowContext(ctx, `SELECT `+protocolColumns+` FROM node_protocols WHERE id = ?`, id))
	return p, orNotFound(err, "protocol", id)
}

const protocolColumns = `id, node_id, tag, protocol, listen, port, config, link, status`

func scanProtocol(row interface{ Scan(...any) error }) (p Protocol, err error) {
	var config, link string
	if err := row.Scan(&p.ID, &p.NodeID, &p.Tag, &p.Protocol, &p.Listen, &p.Port, &config, &link, &p.Status); err != nil {
		return p, err
	}
	p.Config = json.RawMessage(config)
	return p, json.Unmarshal([]byte(link), &p.Link)
}

var listedProtocols = listing[Protocol]{
	what: "protocols", table: "node_protocols", columns: protocolColumns, scan: scanProtocol, id: func(p Protocol) int64 { return p.ID },
}

// ofNode is the condition for rows of a node, and none for node 0.
func ofNode(nodeID int64) (where []string, args []any) {
	if nodeID == 0 {
		return nil, nil
	}
	return []string{"node_id = ?"}, []any{nodeID}
}

// Protocols returns the inbounds of a node. Node 0 means all nodes.
func (s *Store) Protocols(ctx context.Context, nodeID int64) ([]Protocol, error) {
	protocols, _, err := s.ListProtocols(ctx, nodeID, List{})
	return protocols, err
}

// ListProtocols returns a page of the inbounds of a node. Node 0 means all nodes.
func (s *Store) ListProtocols(ctx context.Context, nodeID int64, list List) ([]Protocol, *Position, error) {
	where, args := ofNode(nodeID)
	return listedProtocols.page(ctx, s.read, list, where, args)
}

// RemoveProtocol removes an inbound, raises its node's revision and returns that node.
func (s *Store) RemoveProtocol(ctx context.Context, id int64) (nodeID int64, err error) {
	return nodeID, s.inTransaction(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `DELETE FROM node_protocols WHERE id = ? RETURNING node_id`, id).Scan(&nodeID)
		if err := orNotFound(err, "protocol", id); err != nil {
			return err
		}
		_, err = raiseRevision(ctx, tx, nodeID)
		return err
	})
}
