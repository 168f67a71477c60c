package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"nodeagent/coreapi"
)

// Protocol is one inbound of a node, which the node routes call a protocol.
type Protocol = coreapi.Protocol

// AddProtocol adds an inbound and raises the node's revision. An inbound without a tag gets
// one of its protocol and a number, such as vless-1.
func (s *Store) AddProtocol(ctx context.Context, p Protocol) (Protocol, error) {
	return s.addProtocol(ctx, p, func(*sql.Tx) error { return nil })
}

// AddProtocolOf is AddProtocol for an inbound that was made of a template; ErrChanged where the
// template is not as it was read.
func (s *Store) AddProtocolOf(ctx context.Context, p Protocol, of Template) (Protocol, error) {
	return s.addProtocol(ctx, p, func(tx *sql.Tx) error { return templateIs(ctx, tx, of) })
}

func (s *Store) addProtocol(ctx context.Context, wanted Protocol, check func(*sql.Tx) error) (p Protocol, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
		if err := check(tx); err != nil {
			return err
		}
		p = wanted
		p.Enabled = true
		if p, err = insertProtocol(ctx, tx, p); err != nil {
			return err
		}
		_, err = raiseRevision(ctx, tx, p.NodeID)
		return err
	})
	return p, err
}

func insertProtocol(ctx context.Context, tx *sql.Tx, p Protocol) (Protocol, error) {
	placeholder := p.Tag
	if placeholder == "" {
		placeholder = "\x00"
	}
	id, err := nextID(ctx, tx, "node_protocols")
	if err != nil {
		return p, err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO node_protocols (id, node_id, tag, protocol, listen, port, config, created_at)
		VALUES (?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT DO NOTHING RETURNING id, status`,
		id, p.NodeID, placeholder, p.Protocol, p.Listen, p.Port, millis(time.Now())).Scan(&p.ID, &p.Status)
	if errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("protocol %q on this node: %w", p.Tag, ErrExists)
	} else if err != nil {
		return p, err
	}
	if p.Tag == "" {
		if p.Tag, err = freeTag(ctx, tx, p); err != nil {
			return p, err
		}
	}
	return p, storeProtocol(ctx, tx, p)
}

// storeProtocol stores the members of an inbound that an edit can change.
func storeProtocol(ctx context.Context, tx *sql.Tx, p Protocol) error {
	link, err := json.Marshal(p.Link)
	if err != nil {
		return fmt.Errorf("encode link hints: %w", err)
	}
	overrides, err := json.Marshal(p.Overrides)
	if err != nil {
		return fmt.Errorf("encode overrides: %w", err)
	}
	_, err = tx.ExecContext(ctx, `UPDATE node_protocols SET tag = ?, listen = ?, port = ?, config = ?, link = ?, status = ?, enabled = ?, note = ?,
		template_id = ?, overrides = ? WHERE id = ?`,
		p.Tag, p.Listen, p.Port, string(p.Config), string(link), p.Status, p.Enabled, p.Note, p.TemplateID, string(overrides), p.ID)
	return err
}

// EditedProtocol is an inbound as it was read, and as it is to be.
type EditedProtocol struct{ Before, After Protocol }

// UpdateProtocols stores inbounds that were edited, all or none of them; ErrChanged where one is
// not as it was read, since another instance has edited it. The inbounds have the template, and it
// has to be as it was read too; nil for none. UpdateProtocols raises the revision of the nodes to
// which the change is one, and returns them.
func (s *Store) UpdateProtocols(ctx context.Context, all []EditedProtocol, template *Template) (nodes []int64, err error) {
	return s.updateProtocols(ctx, all, func(tx *sql.Tx) error {
		if template == nil {
			return nil
		}
		return templateIs(ctx, tx, *template)
	})
}

// updateProtocols is UpdateProtocols with something that is done first in the same transaction.
func (s *Store) updateProtocols(ctx context.Context, all []EditedProtocol, first func(*sql.Tx) error) (nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		nodes = nil // of a transaction that the database gave up
		if err := first(tx); err != nil {
			return err
		}
		var concerned []int64
		for _, edited := range all {
			p := edited.After
			before, err := scanProtocol(tx.QueryRowContext(ctx, `SELECT `+protocolColumns+` FROM node_protocols WHERE id = ?`, p.ID))
			if err != nil {
				return orNotFound(err, "protocol", p.ID)
			}
			p.Status, edited.Before.Status = before.Status, before.Status // nodes change it by what they report
			if !reflect.DeepEqual(before, edited.Before) {
				return fmt.Errorf("protocol %d: %w", p.ID, ErrChanged)
			}
			var taken bool
			if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM node_protocols WHERE node_id = ? AND tag = ? AND id != ?)`, before.NodeID, p.Tag, p.ID).Scan(&taken); err != nil {
				return err
			}
			if taken {
				return fmt.Errorf("protocol %q on this node: %w", p.Tag, ErrExists)
			}
			if seen(p) != seen(before) {
				p.Status = "pending"
				concerned = append(concerned, before.NodeID)
			}
			if err := storeProtocol(ctx, tx, p); err != nil {
				return err
			}
		}
		for _, id := range slices.Compact(slices.Sorted(slices.Values(concerned))) {
			raised, err := raiseRevision(ctx, tx, id)
			if err != nil {
				return err
			}
			nodes = append(nodes, raised...)
		}
		return nil
	})
	return nodes, err
}

// seen is what the node knows of the inbound. Of the link hints it knows the flow.
func seen(p Protocol) [6]string {
	if !p.Enabled {
		return [6]string{}
	}
	return [6]string{p.Tag, p.Protocol, p.Listen, fmt.Sprint(p.Port), string(p.Config), p.Link.Flow}
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

const protocolColumns = `id, node_id, tag, protocol, listen, port, config, link, status, enabled, note, template_id, overrides`

func scanProtocol(row interface{ Scan(...any) error }) (p Protocol, err error) {
	var config, link, overrides string
	if err := row.Scan(&p.ID, &p.NodeID, &p.Tag, &p.Protocol, &p.Listen, &p.Port, &config, &link, &p.Status, &p.Enabled, &p.Note, &p.TemplateID, &overrides); err != nil {
		return p, err
	}
	p.Config = json.RawMessage(config)
	return p, errors.Join(json.Unmarshal([]byte(link), &p.Link), json.Unmarshal([]byte(overrides), &p.Overrides))
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

// RemoveProtocol removes an inbound, raises its node's revision and returns that node. The usage of
// the inbound is kept, and its name beside it.
func (s *Store) RemoveProtocol(ctx context.Context, id int64) (nodeID int64, err error) {
	return nodeID, s.inTransaction(ctx, func(tx *sql.Tx) error {
		var name string
		err := tx.QueryRowContext(ctx, `SELECT n.id, n.name || '/' || p.tag FROM node_protocols p JOIN nodes n ON n.id = p.node_id WHERE p.id = ?`, id).Scan(&nodeID, &name)
		if err := orNotFound(err, "protocol", id); err != nil {
			return err
		}
		if err := keepName(ctx, tx, "protocol", id, name, 0); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM node_protocols WHERE id = ?`, id); err != nil {
			return err
		}
		_, err = raiseRevision(ctx, tx, nodeID)
		return err
	})
}
