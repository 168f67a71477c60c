package corestore

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Protocol is one inbound of a node, which the node routes call a protocol.
type Protocol struct {
	ID       int64           `json:"id"`
	NodeID   int64           `json:"nodeId"`
	Tag      string          `json:"tag"`
	Protocol string          `json:"protocol"`
	Listen   string          `json:"listen"`
	Port     int             `json:"port"`
	Config   json.RawMessage `json:"config,omitempty"` // the inbound object of Xray or of the contract's MTProto service, without clients; has private keys
	Link     LinkHints       `json:"link"`
	Status   string          `json:"status"` // pending, active, failed; adminapi shows unsupported and disabled too
	Enabled  bool            `json:"enabled"`
	Note     string          `json:"note"`
	// TemplateID is the template of which the inbound is one use; 0 for none. Config is the
	// template's, with Overrides put into it.
	TemplateID int64     `json:"templateId"`
	Overrides  Overrides `json:"overrides"`
}

// Overrides are what an inbound can have of its own beside its template, or what an edit
// changes. An empty one is as it is.
type Overrides struct {
	Listen     string `json:"listen,omitempty"`
	Port       int    `json:"port,omitempty"`
	PublicHost string `json:"publicHost,omitempty"` // host in links
	SNI        string `json:"sni,omitempty"`        // server name that clients ask for
	CertFile   string `json:"certFile,omitempty"`   // with TLS: path on the node
	KeyFile    string `json:"keyFile,omitempty"`
	Dest       string `json:"dest,omitempty"` // with REALITY: HOST:PORT of the site that is borrowed
	Flow       string `json:"flow,omitempty"` // of VLESS; "none" for none
}

// Merge returns o with what is set in more.
func (o Overrides) Merge(more Overrides) Overrides {
	return Overrides{
		Listen: cmp.Or(more.Listen, o.Listen), Port: cmp.Or(more.Port, o.Port), PublicHost: cmp.Or(more.PublicHost, o.PublicHost), SNI: cmp.Or(more.SNI, o.SNI),
		CertFile: cmp.Or(more.CertFile, o.CertFile), KeyFile: cmp.Or(more.KeyFile, o.KeyFile), Dest: cmp.Or(more.Dest, o.Dest), Flow: cmp.Or(more.Flow, o.Flow),
	}
}

// LinkHints has the parts of a client's link that are not in the inbound object.
type LinkHints struct {
	SNI  string `json:"sni,omitempty"`  // server name that clients send
	Flow string `json:"flow,omitempty"` // of VLESS; empty for none
	// PublicHost is the host in links; empty for the node's address.
	PublicHost string `json:"publicHost,omitempty"`
}

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
		p.Enabled = true
		if err := storeProtocol(ctx, tx, p); err != nil {
			return err
		}
		_, err = raiseRevision(ctx, tx, p.NodeID)
		return err
	})
	return p, err
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

// UpdateProtocols stores inbounds that were edited, all or none of them. It raises the revision
// of the nodes to which the change is one, and returns them. also is run in the same
// transaction; it may be nil.
func (s *Store) UpdateProtocols(ctx context.Context, all []Protocol, also func(*sql.Tx) error) (nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		var concerned []int64
		for _, p := range all {
			before, err := scanProtocol(tx.QueryRowContext(ctx, `SELECT `+protocolColumns+` FROM node_protocols WHERE id = ?`, p.ID))
			if err != nil {
				return orNotFound(err, "protocol", p.ID)
			}
			var taken bool
			if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM node_protocols WHERE node_id = ? AND tag = ? AND id != ?)`, before.NodeID, p.Tag, p.ID).Scan(&taken); err != nil {
				return err
			}
			if taken {
				return fmt.Errorf("protocol %q on this node: %w", p.Tag, ErrExists)
			}
			if p.seen() != before.seen() {
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
func (p Protocol) seen() [6]string {
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

// Protocols returns the inbounds of a node. Node 0 means all nodes.
func (s *Store) Protocols(ctx context.Context, nodeID int64) ([]Protocol, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+protocolColumns+`
		FROM node_protocols WHERE ? = 0 OR node_id = ? ORDER BY id`, nodeID, nodeID)
	return collect(rows, err, func(r *sql.Rows) (Protocol, error) { return scanProtocol(r) })
}

func scanProtocol(row interface{ Scan(...any) error }) (p Protocol, err error) {
	var config, link, overrides string
	if err := row.Scan(&p.ID, &p.NodeID, &p.Tag, &p.Protocol, &p.Listen, &p.Port, &config, &link, &p.Status, &p.Enabled, &p.Note, &p.TemplateID, &overrides); err != nil {
		return p, err
	}
	p.Config = json.RawMessage(config)
	return p, errors.Join(json.Unmarshal([]byte(link), &p.Link), json.Unmarshal([]byte(overrides), &p.Overrides))
}

// RemoveProtocol removes an inbound, raises its node's revision and returns that node.
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
