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

// ErrTooMany means that there are as many rows as Core keeps.
var ErrTooMany = errors.New("there are too many")

// maxClientRows bounds the templates and the rules of client applications: each fetch may look at all.
const maxClientRows = 100

// The tables of what an operator says of client applications.
const (
	clientTemplates = "client_templates"
	clientRules     = "client_rules"
)

// ClientTemplates returns the operator's templates by their names.
func (s *Store) ClientTemplates(ctx context.Context) ([]coreapi.ClientTemplate, error) {
	return clientRows[coreapi.ClientTemplate](ctx, s, clientTemplates)
}

// ClientRules returns the operator's rules by their names.
func (s *Store) ClientRules(ctx context.Context) ([]coreapi.ClientRule, error) {
	return clientRows[coreapi.ClientRule](ctx, s, clientRules)
}

// SetClientTemplate adds a template, or replaces the one with its name.
func (s *Store) SetClientTemplate(ctx context.Context, t coreapi.ClientTemplate) error {
	return s.setClientRow(ctx, clientTemplates, t.Name, t)
}

// SetClientRule adds a rule, or replaces the one with its name.
func (s *Store) SetClientRule(ctx context.Context, r coreapi.ClientRule) error {
	return s.setClientRow(ctx, clientRules, r.Name, r)
}

// RemoveClientTemplate deletes a template.
func (s *Store) RemoveClientTemplate(ctx context.Context, name string) error {
	return s.removeClientRow(ctx, clientTemplates, "template", name)
}

// RemoveClientRule deletes a rule.
func (s *Store) RemoveClientRule(ctx context.Context, name string) error {
	return s.removeClientRow(ctx, clientRules, "rule", name)
}

func clientRows[T any](ctx context.Context, s *Store, table string) ([]T, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT document FROM `+table+` ORDER BY name`)
	return collect(rows, err, func(r *sql.Rows) (row T, err error) {
		var document string
		if err := r.Scan(&document); err != nil {
			return row, err
		}
		return row, json.Unmarshal([]byte(document), &row)
	})
}

func (s *Store) setClientRow(ctx context.Context, table, name string, row any) error {
	document, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		var others int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+table+` WHERE name != ?`, name).Scan(&others); err != nil {
			return err
		}
		if others >= maxClientRows {
			return fmt.Errorf("%d of them are stored: %w; remove one first", others, ErrTooMany)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO `+table+` (name, document, changed_at) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET document = excluded.document, changed_at = excluded.changed_at`, name, string(document), millis(time.Now()))
		return err
	})
}

func (s *Store) removeClientRow(ctx context.Context, table, what, name string) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		removed, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE name = ?`, name)
		if err != nil {
			return err
		}
		if n, err := removed.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fmt.Errorf("%s %s of yours: %w", what, name, ErrNotFound)
	})
}
