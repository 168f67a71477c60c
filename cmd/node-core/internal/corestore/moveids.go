package corestore

import (
	"context"
	"database/sql"
	"strings"
)

// copyIDs copies the greatest ids that were ever given out. PostgreSQL has those of tables with an
// identity in sequences.
func (m *mover) copyIDs(ctx context.Context, fromPostgres, toPostgres bool) error {
	identities := `SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attidentity != '' AND relnamespace = current_schema()::regnamespace`
	name := func(r *sql.Rows) (name string, err error) { return name, r.Scan(&name) }
	last := map[string]int64{}
	rows, err := m.in.QueryContext(ctx, `SELECT name, seq FROM sqlite_sequence`)
	if err := collectMap(rows, err, last); err != nil {
		return err
	}
	if fromPostgres {
		rows, err := m.in.QueryContext(ctx, identities)
		tables, err := collect(rows, err, name)
		if err != nil {
			return err
		}
		for _, table := range tables {
			var seq sql.NullInt64
			if err := m.in.QueryRowContext(ctx, `SELECT pg_sequence_last_value(pg_get_serial_sequence(?, 'id'))`, table).Scan(&seq); err != nil {
				return err
			}
			if seq.Valid {
				last[table] = seq.Int64
			}
		}
	}
	sequences := map[string]bool{}
	if toPostgres {
		rows, err := m.out.QueryContext(ctx, identities)
		tables, err := collect(rows, err, name)
		if err != nil {
			return err
		}
		for _, table := range tables {
			sequences[table] = true
		}
	}
	for table, seq := range last {
		if sequences[table] {
			if _, err := m.out.ExecContext(ctx, `SELECT setval(pg_get_serial_sequence(?, 'id'), ?)`, table, seq); err != nil {
				return err
			}
			continue
		}
		if strings.HasPrefix(table, "goose_") {
			continue
		}
		for _, statement := range []string{`DELETE FROM sqlite_sequence WHERE name = ?1`, `INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)`} {
			args := []any{table, seq}[:strings.Count(statement, "?")]
			if _, err := m.out.ExecContext(ctx, statement, args...); err != nil {
				return err
			}
		}
	}
	return nil
}
