package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"nodeagent/cmd/node-core/internal/corestore/pgsql"
	"nodeagent/coreclient/wire"
)

const (
	// maxWriters, maxBatches and maxReaders bound the connections of one instance to PostgreSQL, whose
	// own bound is 100 by default (max_connections).
	maxWriters = 8
	// maxBatches bounds how many batches of usage an instance stores at a time. They have
	// connections of their own: heartbeats and edits do not wait behind them. More would not
	// be faster, but wait for each other's subscriptions.
	maxBatches = 4
	// connectTimeout bounds one attempt to connect, where the URL names no connect_timeout.
	connectTimeout = 10 * time.Second
	// applicationName is what PostgreSQL shows of an instance's connections.
	applicationName = "node-core"
)

// IsPostgres reports whether the text is a URL of PostgreSQL.
func IsPostgres(database string) bool {
	return strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://")
}

// Postgres says where a database is. Both texts may have a password.
type Postgres struct {
	URL string // postgres://USER@HOST/DATABASE, or a pooler's
	// Direct is the URL of PostgreSQL itself where URL leads to a pooler; else empty.
	Direct string

	application string // the name of its connections; empty for applicationName
}

// OpenPostgres opens a database and applies the migrations that it lacks. Several instances may
// have it open, and open it at the same time.
func OpenPostgres(ctx context.Context, database Postgres) (*Store, error) {
	config, err := postgresConfig(database.URL)
	if err != nil {
		return nil, err
	}
	if database.application != "" {
		config.RuntimeParams["application_name"] = database.application
	}
	direct := config
	if database.Direct != "" {
		if direct, err = postgresConfig(database.Direct); err != nil {
			return nil, err
		}
	}
	plain := pgsql.OpenPlain(config)
	defer plain.Close()
	s := newStore(postgresDialect{plain: plain})
	s.direct = direct
	s.known.hear(false)
	s.write, s.read, s.batches = pgsql.Open(config), pgsql.Open(config), pgsql.Open(config)
	s.batches.SetMaxOpenConns(maxBatches)
	s.batches.SetMaxIdleConns(maxBatches)
	s.write.SetMaxOpenConns(maxWriters)
	s.write.SetMaxIdleConns(maxWriters)
	s.read.SetMaxOpenConns(maxReaders)
	s.read.SetMaxIdleConns(maxReaders)
	if err := s.prepareAlone(ctx); err != nil {
		return nil, errors.Join(openPostgresError(config, err), s.Close())
	}
	return s, nil
}

// postgresConfig reads a URL. Its error has no password.
func postgresConfig(database string) (*pgx.ConnConfig, error) {
	if !IsPostgres(database) {
		return nil, errors.New("read the database's URL: want postgres://USER@HOST/DATABASE")
	}
	config, err := pgx.ParseConfig(database)
	if err != nil {
		return nil, fmt.Errorf("read the database's URL: %w", err) // pgx leaves the password out
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = applicationName
	}
	return config, nil
}

// openPostgresError says what to do about an error of opening. pgx has a line for each address
// that it has tried; a command prints one line.
func openPostgresError(config *pgx.ConnConfig, err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return fmt.Errorf("open database %s: %w%s", nameOf(config), retold{text, err}, pgsql.Advice(err))
}

// retold is an error in other words.
type retold struct {
	text string
	error
}

func (r retold) Error() string { return r.text }
func (r retold) Unwrap() error { return r.error }

// nameOf names a database in messages, without a password.
func nameOf(config *pgx.ConnConfig) string {
	host := config.Host
	if !strings.HasPrefix(host, "/") {
		host = net.JoinHostPort(host, fmt.Sprint(config.Port))
	}
	return fmt.Sprintf("%s at %s", config.Database, host)
}

// prepareAlone is prepare while no other instance does the same. The lock is of a transaction: a
// pooler may give each transaction another connection.
func (s *Store) prepareAlone(ctx context.Context) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // it has changed nothing, and gives back the lock
	var version int
	if err := tx.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return fmt.Errorf("ask for its version: %w", err)
	}
	if version < 150000 {
		return fmt.Errorf("its version is %d.%d: want PostgreSQL 15 or later", version/10000, version%10000)
	}
	if err := advisoryLock(ctx, tx, lockPrepare); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return makeDays(ctx, s.write, time.Now())
}

// mergeSlice deletes and adds in one statement: a row that comes or grows meanwhile is either
// among those that are merged, as it is then, or stays.
func (postgresDialect) mergeSlice(ctx context.Context, tx *sql.Tx, into, from, until int64) error {
	_, err := tx.ExecContext(ctx, `
		WITH gone AS (DELETE FROM usage WHERE recorded_at >= ?2 AND recorded_at < ?3 AND recorded_at != ?1 RETURNING *)
		INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
		SELECT node_id, ?1, user_id, subscription_id, node_protocol_id, sum(min(bytes_up, ?4)), sum(min(bytes_down, ?4)), max(flagged)
		FROM gone GROUP BY node_id, user_id, subscription_id, node_protocol_id `+addToUsage, into, from, until, int64(maxSum)/8)
	return err
}

// rollUp exchanges whole days, so that the rows of the last day that is not over are left as they are.
func (postgresDialect) rollUp(ctx context.Context, db *sql.DB, now time.Time) (before time.Time, err error) {
	before = day(now.Add(-minuteRowsLife))
	return before, errors.Join(makeDays(ctx, db, now), rollUp(ctx, db, before))
}

// usageColumns are the columns of the table usage.
var usageColumns = []string{"node_id", "recorded_at", "user_id", "subscription_id", "node_protocol_id", "bytes_up", "bytes_down", "flagged"}

// insertUsage sends the rows by COPY, where the node has no rows of these minutes yet. Otherwise they
// are added to those, in one statement with an array for each column. A row that another batch of
// the node adds between the look and the COPY makes a conflict, and AddUsage looks again.
func (postgresDialect) insertUsage(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, doubts doubts) error {
	columns := make([][]int64, len(usageColumns))
	for i := range columns {
		columns[i] = make([]int64, len(entries))
	}
	minutes := map[int64]bool{}
	for i, e := range entries {
		at, flagged := millis(e.RecordedAt), int64(0)
		if doubts.about(e) {
			flagged = 1
		}
		for column, value := range []int64{nodeID, at, e.UserID, subscriptionID(e), e.NodeProtocolID, e.BytesUp, e.BytesDown, flagged} {
			columns[column][i] = value
		}
		minutes[at] = true
	}
	var has bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM usage WHERE node_id = ? AND recorded_at = ANY (?))`,
		nodeID, slices.Collect(maps.Keys(minutes))).Scan(&has); err != nil {
		return err
	}
	if !has {
		_, err := tx.ExecContext(ctx, pgsql.Copy, pgsql.Rows{Table: "usage", Columns: usageColumns, Values: columns})
		return err
	}
	args := make([]any, len(columns))
	for i, column := range columns {
		args[i] = column
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO usage (`+strings.Join(usageColumns, ", ")+`) SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?) `+addToUsage, args...)
	return err
}

// addSums changes the subscriptions in the order of their ids: two batches of which each waits for
// the other would wait for a second. A nested loop keeps the order of the arrays.
func (postgresDialect) addSums(ctx context.Context, tx *sql.Tx, sums []subscriptionSum) (over []overLimit, err error) {
	var ids, users, up, down, used, rest []int64
	for _, sum := range sums {
		ids, users, up, down = append(ids, sum.id), append(users, sum.user), append(up, sum.up), append(down, sum.down)
		used, rest = append(used, sum.used), append(rest, sum.rest)
	}
	if _, err := tx.ExecContext(ctx, `SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`); err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `WITH counted AS (UPDATE subscriptions s SET bytes_up = `+plus("s.bytes_up", "n.up")+`, bytes_down = `+plus("s.bytes_down", "n.down")+`,
		`+addUsed("n.used", "n.rest")+`
		FROM unnest(?, ?, ?, ?, ?, ?) n (id, user_id, up, down, used, rest) WHERE s.id = n.id AND s.user_id = n.user_id
		RETURNING s.id, s.limit_bytes, s.limited, s.used_bytes, s.extra_bytes, n.used)
		SELECT id, `+hasReached+` FROM counted WHERE `+isNear, ids, users, up, down, used, rest)
	return collect(rows, err, scanOver)
}
