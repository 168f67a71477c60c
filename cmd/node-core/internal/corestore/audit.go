package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// AuditEntry says who changed what.
type AuditEntry = coreapi.AuditEntry

// Request is the request of the admin API on whose behalf a method of the store is called. Its
// marks are written in the same transaction as the change, so that there is neither without the
// other.
type Request struct {
	Audit AuditEntry
	// Key is the Idempotency-Key, and Hash of what was asked; no key for none.
	Key  string
	Hash []byte
	// Unchanged returns an error where the row that the request changes is not as the caller
	// believes; nil for no such question. It is asked inside of the transaction.
	Unchanged func(ctx context.Context, tx *sql.Tx) error
	// marked is set when the marks are committed: the request of a method that has further
	// transactions leaves them once.
	marked bool
}

type requestKey struct{}

// ForRequest returns a context for the methods that a request calls.
func ForRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// ErrRepeated means that a change with this Idempotency-Key was made already.
var ErrRepeated = errors.New("this Idempotency-Key was used already")

func requestOf(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey{}).(*Request)
	return r
}

// mark writes the marks of the request of ctx, if there is one.
func mark(ctx context.Context, tx *sql.Tx) error {
	r := requestOf(ctx)
	if r == nil || r.marked {
		return nil
	}
	now := millis(time.Now())
	if r.Key != "" {
		added, err := tx.ExecContext(ctx, `INSERT INTO api_requests (who, key, request, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, r.Audit.Who, r.Key, r.Hash, now)
		if err != nil {
			return fmt.Errorf("keep the Idempotency-Key: %w", err)
		}
		if n, err := added.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return ErrRepeated
		}
	}
	if r.Unchanged != nil {
		if err := r.Unchanged(ctx, tx); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO audit (at, who, role, operation, target, details) VALUES (?, ?, ?, ?, ?, ?)`,
		now, r.Audit.Who, string(r.Audit.Role), r.Audit.Operation, r.Audit.Target, string(r.Audit.Details)); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

// Answered is what was answered to a request with an Idempotency-Key.
type Answered struct {
	Hash   []byte // of what was asked
	Status int    // 0 where the answer is not known
	Header string // JSON
	Body   []byte
}

// Answered returns what was answered to a request with that key; ErrNotFound where there was
// none.
func (s *Store) Answered(ctx context.Context, who, key string) (a Answered, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT request, status, header, answer FROM api_requests WHERE who = ? AND key = ?`, who, key).Scan(&a.Hash, &a.Status, &a.Header, &a.Body)
	return a, orNotFound(err, "request", key)
}

// KeepAnswer keeps what was answered to a request with a key.
func (s *Store) KeepAnswer(ctx context.Context, who, key string, a Answered) error {
	_, err := s.write.ExecContext(ctx, `UPDATE api_requests SET status = ?, header = ?, answer = ? WHERE who = ? AND key = ?`, a.Status, a.Header, a.Body, who, key)
	return err
}

// AuditFilter says which entries of the audit log are listed.
type AuditFilter struct {
	Since time.Time // the zero time for all
	Who   string    // empty for all
}

var listedAudit = listing[AuditEntry]{
	what: "audit", table: "audit", columns: `id, at, who, role, operation, target, details`, id: func(e AuditEntry) int64 { return e.ID },
	scan: func(row interface{ Scan(...any) error }) (e AuditEntry, err error) {
		var at int64
		var role, details string
		err = row.Scan(&e.ID, &at, &e.Who, &role, &e.Operation, &e.Target, &details)
		e.At, e.Role, e.Details = time.UnixMilli(at).UTC(), coreapi.Role(role), []byte(details)
		return e, err
	},
}

// ListAudit returns a page of the audit log.
func (s *Store) ListAudit(ctx context.Context, f AuditFilter, list List) ([]AuditEntry, *Position, error) {
	var where []string
	var args []any
	if !f.Since.IsZero() {
		where, args = append(where, "at >= ?"), append(args, millis(f.Since))
	}
	if f.Who != "" {
		where, args = append(where, "who = ?"), append(args, f.Who)
	}
	return listedAudit.page(ctx, s.read, list, where, args)
}
