package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"nodeagent/cmd/node-core/internal/corestore/pgsql"
)

const (
	// maxWriters and maxReaders bound the connections of one instance to PostgreSQL, whose
	// own bound is 100 by default (max_connections).
	maxWriters = 12
	// connectTimeout bounds one attempt to connect, where the URL names no connect_timeout.
	connectTimeout = 10 * time.Second
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
}

// OpenPostgres opens a database and applies the migrations that it lacks. Several instances may
// have it open, and open it at the same time.
func OpenPostgres(ctx context.Context, database Postgres) (*Store, error) {
	config, err := postgresConfig(database.URL)
	if err != nil {
		return nil, err
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
	s.write, s.read = pgsql.Open(config), pgsql.Open(config)
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
		config.RuntimeParams["application_name"] = "node-core"
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
	return s.prepare(ctx)
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
