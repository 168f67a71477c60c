package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// rowSetter changes many rows of a table by few statements: one for rowsPerInsert rows, which sets the
// columns that one of these rows has changed.
type rowSetter struct {
	table     string
	columns   []string
	returning string // beside the id; empty for nothing
	rows      []settableRow
}

type settableRow struct {
	id          int64
	old, values []any // of the columns
}

// add notes a row that has other values than it had. A value that can be missing is nil or a number.
func (s *rowSetter) add(id int64, old, values []any) {
	if !slices.Equal(old, values) {
		s.rows = append(s.rows, settableRow{id, old, values})
	}
}

// store writes the rows. scan reads the id and returning of each.
func (s *rowSetter) store(ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) error) error {
	for part := range slices.Chunk(s.rows, rowsPerInsert) {
		query, args := s.statement(part)
		rows, err := tx.QueryContext(ctx, query, args...)
		_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) { return struct{}{}, scan(r) })
		if err != nil {
			return fmt.Errorf("change %d rows of %s: %w", len(part), s.table, err)
		}
	}
	return nil
}

// statement returns the statement for some rows. Both databases call the columns of VALUES column1, column2
// and so on.
func (s *rowSetter) statement(part []settableRow) (query string, args []any) {
	var set []string
	var columns []int
	for i, name := range s.columns {
		changed := slices.ContainsFunc(part, func(r settableRow) bool { return r.old[i] != r.values[i] })
		if !changed {
			continue
		}
		columns = append(columns, i)
		value := fmt.Sprint("v.column", len(columns)+1)
		if slices.ContainsFunc(part, func(r settableRow) bool { return r.values[i] == nil }) {
			// PostgreSQL takes a column of NULL alone for one of text.
			value = "CAST(" + value + " AS BIGINT)"
		}
		set = append(set, name+" = "+value)
	}
	for _, r := range part {
		args = append(args, r.id)
		for _, i := range columns {
			args = append(args, r.values[i])
		}
	}
	returning := "id"
	if s.returning != "" {
		returning += ", " + s.returning
	}
	return `UPDATE ` + s.table + ` SET ` + strings.Join(set, ", ") + ` FROM (VALUES ` + placeholders(len(columns)+1, len(part)) + `) v WHERE id = v.column1 RETURNING ` + returning, args
}
