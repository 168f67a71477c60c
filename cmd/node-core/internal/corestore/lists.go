package corestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// List says which rows of a table are read: a page, in an order.
type List struct {
	// Sort is the name of an order of the table; empty for the order of the ids. A "-" before it
	// turns the order round.
	Sort  string
	After *Position // the last row of the page before; nil for the first page
	Limit int       // of rows; 0 for all
}

// Position is where a page ends.
type Position struct {
	Sort  string `json:"s,omitempty"`
	Value any    `json:"v,omitempty"` // of the column of the order, in the last row
	ID    int64  `json:"i"`
}

// ErrNoSort means that a table has no such order.
var ErrNoSort = errors.New("there is no such order")

// listing says how a table is listed.
type listing[T any] struct {
	what    string // in errors
	table   string
	columns string
	scan    func(interface{ Scan(...any) error }) (T, error)
	key     string // the column of the id, with the name of its table; empty for id
	id      func(T) int64
	// orders has the columns by which the table can be ordered beside id, and the value of that
	// column. Each has an index with the id, or few rows.
	orders map[string]order[T]
}

type order[T any] struct {
	column string
	value  func(T) any
}

// page reads a page. where are conditions, each with as many "?" as it has arguments in args.
// next is nil where the page is the last.
func (l listing[T]) page(ctx context.Context, db *sql.DB, list List, where []string, args []any) (rows []T, next *Position, err error) {
	query, args, by, err := l.query(list, where, args)
	if err != nil {
		return nil, nil, err
	}
	found, err := db.QueryContext(ctx, query, args...)
	rows, err = collect(found, err, func(r *sql.Rows) (T, error) { return l.scan(r) })
	if err != nil || list.Limit == 0 || len(rows) <= list.Limit {
		return rows, nil, err
	}
	rows = rows[:list.Limit]
	last := rows[len(rows)-1]
	next = &Position{Sort: list.Sort, ID: l.id(last)}
	if by.value != nil {
		next.Value = by.value(last)
	}
	return rows, next, nil
}

// query returns the statement that reads a page and the row after it.
func (l listing[T]) query(list List, where []string, args []any) (query string, _ []any, by order[T], err error) {
	name, descending := strings.CutPrefix(list.Sort, "-")
	by, known := l.orders[name] // the zero order is that of the ids
	if !known && name != "" && name != "id" {
		return "", nil, by, fmt.Errorf("%s by %q: %w; want id, %s", l.what, name, ErrNoSort, strings.Join(slices.Sorted(maps.Keys(l.orders)), ", "))
	}
	key := cmp.Or(l.key, "id")
	columns := []string{by.column, key}
	if !known {
		columns = columns[1:]
	}
	direction, after := "", ">"
	if descending {
		direction, after = " DESC", "<"
	}
	if p := list.After; p != nil {
		if known { // SQLite takes no index for a pair of an expression or of two tables
			where, args = append(where, by.column+" "+after+"= ?"), append(args, p.Value)
		}
		where = append(where, "("+strings.Join(columns, ", ")+") "+after+" "+placeholders(len(columns), 1))
		args = append(args, []any{p.Value, p.ID}[2-len(columns):]...)
	}
	query = "SELECT " + l.columns + " FROM " + l.table
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	query += " ORDER BY " + strings.Join(columns, direction+", ") + direction
	if list.Limit > 0 {
		query += " LIMIT ?"
		args = append(args, list.Limit+1) // the row after the page says whether there is another one
	}
	return query, args, by, nil
}

// has is a condition that one of the columns has the word, and its arguments. In both databases LIKE
// takes large and small letters of ASCII for the same, and no others: a word with other letters
// is found as it is written, and in small letters.
func has(word string, columns ...string) (condition string, args []any) {
	patterns := slices.Compact([]string{contains(word), contains(strings.ToLower(word))})
	var either []string
	for _, column := range columns {
		for _, pattern := range patterns {
			either, args = append(either, column+` LIKE ? ESCAPE '\'`), append(args, pattern)
		}
	}
	return "(" + strings.Join(either, " OR ") + ")", args
}

// contains is a pattern of LIKE with the escape character \: every text that has the word.
func contains(word string) string { return "%" + escaped(word) + "%" }

// escaped is a text in a pattern of LIKE with the escape character \.
func escaped(text string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text)
}
