package corestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// Token is a token of the admin API, without the secret.
type Token = coreapi.Token

// tokenPrefix lets people and scanners of secrets know a token when they see one.
const tokenPrefix = "nct1_"

// AddToken adds a token with the name, role, creator and expiry of t, and returns its secret,
// of which only the hash is stored. The secret has 128 bits or more (rand.Text), so that a plain
// hash is enough.
func (s *Store) AddToken(ctx context.Context, t Token) (_ Token, secret string, err error) {
	t.CreatedAt, secret = time.Now().UTC(), tokenPrefix+rand.Text()
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `INSERT INTO api_tokens (name, hash, role, created_at, created_by, expires_at) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING RETURNING id`, t.Name, hashOf(secret), string(t.Role), millis(t.CreatedAt), t.CreatedBy, orNull(t.ExpiresAt)).Scan(&t.ID)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("token %q: %w", t.Name, ErrExists)
		}
		return err
	})
	return t, secret, err
}

const tokenColumns = `id, name, role, created_at, created_by, expires_at, last_used_at`

func scanToken(row interface{ Scan(...any) error }) (t Token, err error) {
	var created int64
	var expires, used sql.NullInt64
	var role string
	err = row.Scan(&t.ID, &t.Name, &role, &created, &t.CreatedBy, &expires, &used)
	t.Role, t.CreatedAt, t.ExpiresAt, t.LastUsedAt = coreapi.Role(role), time.UnixMilli(created).UTC(), fromMillis(expires), fromMillis(used)
	return t, err
}

// Tokens returns all tokens, also expired ones.
func (s *Store) Tokens(ctx context.Context) ([]Token, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+tokenColumns+` FROM api_tokens ORDER BY id`)
	return collect(rows, err, func(r *sql.Rows) (Token, error) { return scanToken(r) })
}

// RemoveToken deletes the token of that name or id and returns it: no later request is answered.
func (s *Store) RemoveToken(ctx context.Context, nameOrID string) (t Token, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		row := tx.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM api_tokens WHERE name = ? OR id = ? ORDER BY CASE WHEN name = ? THEN 0 ELSE 1 END LIMIT 1`,
			nameOrID, parseID(nameOrID), nameOrID)
		if t, err = scanToken(row); err != nil {
			return orNotFound(err, "token", nameOrID)
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM api_tokens WHERE id = ?`, t.ID)
		return err
	})
	return t, err
}

// usedEvery is how exact the time is at which a token was used last.
const usedEvery = time.Minute

// TokenOf returns the token that has the secret, also an expired one; ErrNotFound if none has
// it. It notes that the token is used.
func (s *Store) TokenOf(ctx context.Context, secret string) (Token, error) {
	// The time of the index lookup depends on the hash, from which the secret does not follow.
	t, err := scanToken(s.read.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM api_tokens WHERE hash = ?`, hashOf(secret)))
	if err != nil {
		return t, orNotFound(err, "token", "of this request")
	}
	now := time.Now()
	if t.LastUsedAt == nil || now.Sub(*t.LastUsedAt) >= usedEvery {
		_, err = s.write.ExecContext(ctx, `UPDATE api_tokens SET last_used_at = ? WHERE id = ?`, millis(now), t.ID)
	}
	return t, err
}
