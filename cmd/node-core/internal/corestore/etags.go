package corestore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nodeagent/coreapi"
)

// ErrChanged means that a row is not as the caller believes: somebody else has changed it.
var ErrChanged = errors.New("somebody else has changed it meanwhile; read it again")

// The kinds of rows that have an ETag.
const (
	KindUser         = "user"
	KindSubscription = "subscription"
	KindPlan         = "plan"
	KindGroup        = "group"
	KindNode         = "node"
	// KindProtocol is an inbound, named by its id or by NODE/TAG, or a template, named by its name.
	KindProtocol = "protocol"
	// KindOutbound is an outbound, named by NODE/TAG.
	KindOutbound = "outbound"
	KindRouting  = "routing profile"
	KindHost     = "host"
)

// ETag returns the ETag of a row, with its quotes. It depends on what can be edited, and not on
// traffic, which changes by itself.
func (s *Store) ETag(ctx context.Context, kind, nameOrID string) (string, error) {
	return etag(ctx, s.read, kind, nameOrID)
}

func etag(ctx context.Context, db queryer, kind, nameOrID string) (string, error) {
	row, err := editable(ctx, db, kind, nameOrID)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(row)
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`, err
}

// editable returns a row without what changes by itself.
func editable(ctx context.Context, db queryer, kind, nameOrID string) (any, error) {
	switch kind {
	case KindUser:
		return user(ctx, db, nameOrID)
	case KindSubscription:
		sub, err := scanSubscription(db.QueryRowContext(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions WHERE id = ? OR uuid = ?`, parseID(nameOrID), nameOrID))
		sub.BytesUp, sub.BytesDown, sub.UsedBytes, sub.FirstUsedAt, sub.Status = 0, 0, 0, nil, ""
		row := struct {
			Subscription
			LinkVersion int64
		}{sub, sub.linkVersion}
		return row, orNotFound(err, "subscription", withoutUUID(nameOrID))
	case KindPlan:
		return plan(ctx, db, nameOrID)
	case KindGroup:
		g, err := group(ctx, db, nameOrID)
		g.Subscriptions = 0
		return g, err
	}
	return editableOnNodes(ctx, db, kind, nameOrID)
}

// editableOnNodes is editable for the kinds of rows that nodes have.
func editableOnNodes(ctx context.Context, db queryer, kind, nameOrID string) (any, error) {
	switch kind {
	case KindNode:
		n, err := node(ctx, db, nameOrID)
		return struct {
			ID           int64
			Name, Region string
			MTProto      []byte
			NodeTerms    coreapi.NodeTerms
		}{n.ID, n.Name, n.Region, n.MTProto, n.NodeTerms}, err
	case KindProtocol:
		return editableProtocol(ctx, db, nameOrID)
	case KindOutbound:
		name, tag, _ := strings.Cut(nameOrID, "/")
		n, err := node(ctx, db, name)
		if err != nil {
			return nil, err
		}
		o, err := scanOutbound(db.QueryRowContext(ctx, `SELECT `+outboundColumns+` FROM node_outbounds WHERE node_id = ? AND tag = ?`, n.ID, tag))
		o.TrafficBytesUp, o.TrafficBytesDown = 0, 0
		return o, orNotFound(err, "outbound", tag)
	case KindRouting:
		return routing(ctx, db, nameOrID)
	case KindHost:
		h, err := scanHost(db.QueryRowContext(ctx, `SELECT `+hostColumns+` FROM hosts WHERE id = ?`, parseID(nameOrID)))
		return h, orNotFound(err, "host", nameOrID)
	}
	return nil, fmt.Errorf("rows of the kind %q have no ETag", kind)
}

// editableProtocol returns an inbound or a template without its status and the number of its uses.
func editableProtocol(ctx context.Context, db queryer, word string) (any, error) {
	name, tag, both := strings.Cut(word, "/")
	if !both && parseID(word) < 0 {
		t, err := scanTemplate(db.QueryRowContext(ctx, `SELECT `+templateColumns+` FROM protocol_templates t WHERE t.name = ?`, word))
		t.Uses = 0
		return t, orNotFound(err, "template", word)
	}
	row := func() *sql.Row {
		return db.QueryRowContext(ctx, `SELECT `+protocolColumns+` FROM node_protocols WHERE id = ?`, parseID(word))
	}
	if both {
		n, err := node(ctx, db, name)
		if err != nil {
			return nil, err
		}
		row = func() *sql.Row {
			return db.QueryRowContext(ctx, `SELECT `+protocolColumns+` FROM node_protocols WHERE node_id = ? AND tag = ?`, n.ID, tag)
		}
	}
	p, err := scanProtocol(row())
	p.Status = ""
	return p, orNotFound(err, "protocol", word)
}

// IfMatch returns a question for Request.Unchanged: whether the row still has one of the ETags.
func IfMatch(kind, nameOrID string, etags []string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		now, err := etag(ctx, tx, kind, nameOrID)
		if err != nil {
			return err
		}
		if slices.Contains(etags, now) || slices.Contains(etags, "*") {
			return nil
		}
		return fmt.Errorf("%s %s: %w", kind, withoutUUIDOf(kind, nameOrID), ErrChanged)
	}
}

func withoutUUIDOf(kind, nameOrID string) string {
	if kind == KindSubscription {
		return withoutUUID(nameOrID)
	}
	return nameOrID
}
