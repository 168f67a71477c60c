package corestore

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore/pgsql"
)

// copy copies a table and compares the copy.
func (m *mover) copy(ctx context.Context, t table, toPostgres bool) error {
	where := ""
	if t.name == "secrets" { // the certificate goes where the target keeps it
		where = ` WHERE name NOT LIKE 'tls.%'`
	}
	query := `SELECT ` + strings.Join(t.columns, ", ") + ` FROM ` + t.name + where
	rows, err := m.in.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	var read digest
	next := func() ([]any, error) {
		values, err := scanAny(rows, len(t.columns))
		if values == nil || err != nil {
			return nil, err
		}
		for i, v := range values {
			if s, is := v.(string); is && toPostgres {
				values[i] = pgsql.Text(s)
			}
		}
		read.add(values)
		if read.rows%progressRows == 0 {
			m.progress(t.name, read.rows)
		}
		return values, nil
	}
	if toPostgres {
		_, err = m.out.ExecContext(ctx, pgsql.Copy, pgsql.Stream{Table: t.name, Columns: t.columns, Next: next})
	} else {
		err = insertAll(ctx, m.out, t, next)
	}
	if err != nil {
		return err
	}
	written, err := digestOf(ctx, m.out, query, len(t.columns))
	if err != nil {
		return fmt.Errorf("read the copy: %w", err)
	}
	if written != read {
		return fmt.Errorf("the copy is not the same: %d rows were read and %d are there, or they differ", read.rows, written.rows)
	}
	m.moved = append(m.moved, MovedTable{t.name, read.rows})
	m.progress(t.name, read.rows)
	return nil
}

// scanAny reads the next row; nil after the last one.
func scanAny(rows *sql.Rows, n int) ([]any, error) {
	if !rows.Next() {
		return nil, rows.Err()
	}
	values, to := make([]any, n), make([]any, n)
	for i := range to {
		to[i] = &values[i]
	}
	return values, rows.Scan(to...)
}

func insertAll(ctx context.Context, tx *sql.Tx, t table, next func() ([]any, error)) error {
	insert, err := tx.PrepareContext(ctx, `INSERT INTO `+t.name+` (`+strings.Join(t.columns, ", ")+`) VALUES `+placeholders(len(t.columns), 1))
	if err != nil {
		return err
	}
	defer insert.Close()
	for {
		values, err := next()
		if values == nil || err != nil {
			return err
		}
		if _, err := insert.ExecContext(ctx, values...); err != nil {
			return err
		}
	}
}

// digest is the same for the same rows in any order.
type digest struct {
	rows int64
	sum  uint64 // of the rows' hashes
}

func (d *digest) add(values []any) {
	h := fnv.New64a()
	var size [9]byte
	write := func(kind byte, content []byte) {
		size[0] = kind
		binary.LittleEndian.PutUint64(size[1:], uint64(len(content)))
		_, _ = h.Write(size[:])
		_, _ = h.Write(content)
	}
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			write('n', nil)
		case []byte:
			write('b', v)
		case string:
			write('s', []byte(v))
		default:
			write('i', fmt.Append(nil, v))
		}
	}
	d.rows++
	d.sum += h.Sum64()
}

func digestOf(ctx context.Context, tx *sql.Tx, query string, columns int) (d digest, err error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return d, err
	}
	defer rows.Close()
	for {
		values, err := scanAny(rows, columns)
		if values == nil || err != nil {
			return d, err
		}
		d.add(values)
	}
}
