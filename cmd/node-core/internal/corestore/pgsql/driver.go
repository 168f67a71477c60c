package pgsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Open returns a pool of connections to which the rewriting of this package applies. It does not
// connect yet. The caller closes it.
func Open(config *pgx.ConnConfig) *sql.DB {
	return sql.OpenDB(connector{stdlib.GetConnector(*config)})
}

// OpenPlain returns a pool without the rewriting, for statements in PostgreSQL's own words.
func OpenPlain(config *pgx.ConnConfig) *sql.DB { return stdlib.OpenDB(*config) }

type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{inner.(*stdlib.Conn)}, nil
}

// Conn is a connection of a pool that Open has made; database/sql gives it to sql.Conn.Raw.
type Conn struct{ inner *stdlib.Conn }

// PGX returns the connection of pgx, which belongs to the pool.
func (c *Conn) PGX() *pgx.Conn { return c.inner.Conn() }

// Close closes the connection.
func (c *Conn) Close() error { return c.inner.Close() }

// Begin is for database/sql, which calls BeginTx.
func (c *Conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx begins a transaction. A read-only one sees one state of the database, as on SQLite. Where the
// connection turns out to be dead, as after a failover, nothing has begun, and database/sql takes another one.
func (c *Conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if opts.ReadOnly && opts.Isolation == driver.IsolationLevel(sql.LevelDefault) {
		opts.Isolation = driver.IsolationLevel(sql.LevelRepeatableRead)
	}
	tx, err := c.inner.BeginTx(ctx, opts)
	if err != nil && ctx.Err() == nil && c.PGX().IsClosed() {
		return nil, driver.ErrBadConn
	}
	return tx, err
}

// ExecContext runs a statement.
func (c *Conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if query == Copy && len(args) == 1 {
		switch rows := args[0].Value.(type) {
		case Rows:
			return c.copy(ctx, rows)
		case Stream:
			return c.stream(ctx, rows)
		}
	}
	query, args, err := forPostgres(query, args)
	if err != nil {
		return nil, fmt.Errorf("rewrite a statement for PostgreSQL: %w", err)
	}
	return c.inner.ExecContext(ctx, query, args)
}

// QueryContext runs a query.
func (c *Conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	query, args, err := forPostgres(query, args)
	if err != nil {
		return nil, fmt.Errorf("rewrite a query for PostgreSQL: %w", err)
	}
	return c.inner.QueryContext(ctx, query, args)
}

const (
	// preparedParameters is how many parameters a statement may have that stays prepared. The longest that come
	// often, with the ids of an IN, have 250 and a few.
	preparedParameters = 256
	// preparedWithNulls is the same for a statement with a NULL, whose text depends on the values. One row has
	// fewer parameters.
	preparedWithNulls = 64
)

// forPostgres rewrites a statement, and puts the mode of pgx before the arguments where it is not to stay
// prepared. pgx keeps 512 statements for each connection by their texts (its statement_cache_capacity), and
// PostgreSQL all that it has parsed of them. The text of a statement for many rows hardly ever comes again.
func forPostgres(query string, args []driver.NamedValue) (string, []driver.NamedValue, error) {
	text, used, err := rewrite(query, args)
	if err != nil {
		return "", nil, err
	}
	if len(used) > preparedParameters || len(args) > preparedWithNulls && len(used) < len(args) {
		used = append([]driver.NamedValue{{Value: pgx.QueryExecModeExec}}, used...)
	}
	return text, used, nil
}

// Copy is the statement whose one argument is Rows or a Stream.
const Copy = "COPY"

// Rows are rows of whole numbers for COPY, which is faster than an INSERT.
type Rows struct {
	Table   string
	Columns []string
	Values  [][]int64 // of each column, all of one length
}

// Stream is Rows whose values come one row after the other, nil after the last one.
type Stream struct {
	Table   string
	Columns []string
	Next    func() ([]any, error)
}

func (c *Conn) stream(ctx context.Context, s Stream) (driver.Result, error) {
	n, err := c.PGX().CopyFrom(ctx, pgx.Identifier{s.Table}, s.Columns, pgx.CopyFromFunc(s.Next))
	return driver.RowsAffected(n), err
}

// copy sends rows.
func (c *Conn) copy(ctx context.Context, rows Rows) (driver.Result, error) {
	values := make([]any, len(rows.Columns))
	n, err := c.PGX().CopyFrom(ctx, pgx.Identifier{rows.Table}, rows.Columns, pgx.CopyFromSlice(len(rows.Values[0]), func(row int) ([]any, error) {
		for i, column := range rows.Values {
			values[i] = column[row]
		}
		return values, nil
	}))
	return driver.RowsAffected(n), err
}

// CheckNamedValue lets arrays of whole numbers and Rows through, beside what database/sql takes.
func (*Conn) CheckNamedValue(value *driver.NamedValue) error {
	switch value.Value.(type) {
	case []int64, Rows, Stream:
		return nil
	}
	return driver.ErrSkip
}

// Ping asks whether the server answers.
func (c *Conn) Ping(ctx context.Context) error { return c.inner.Ping(ctx) }

// ResetSession refuses a connection that is broken or still in a transaction.
func (c *Conn) ResetSession(ctx context.Context) error { return c.inner.ResetSession(ctx) }

// Prepare is for database/sql, which calls PrepareContext.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return &stmt{conn: c, query: query}, nil
}

// PrepareContext keeps the statement's text: it depends on the types of the arguments. pgx
// keeps what it has prepared by the text.
func (c *Conn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return c.Prepare(query)
}

type stmt struct {
	conn  *Conn
	query string
}

func (*stmt) Close() error  { return nil }
func (*stmt) NumInput() int { return -1 } // rewrite counts them

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, args)
}

func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), named(args))
}

func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), named(args))
}

func named(args []driver.Value) []driver.NamedValue {
	all := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		all[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return all
}
