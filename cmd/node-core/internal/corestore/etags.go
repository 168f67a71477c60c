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
)

// ErrChanged means that a row is not as the caller believes: somebody else has changed it.
var ErrChanged = errors.New("somebody else has changed it meanwhile; read it again")

// The kinds of rows that have an ETag.
const (
	KindUser         = "user"
	KindSubscription = "subscription"
	KindPlan         = "plan"
	KindGroup        = "group"
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
	return nil, fmt.Errorf("rows of the kind %q have no ETag", kind)
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
