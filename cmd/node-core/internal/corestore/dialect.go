package corestore

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"time"

	"github.com/pressly/goose/v3"

	"nodeagent/cmd/node-core/internal/corestore/pgsql"
	"nodeagent/coreclient/wire"
)

//go:embed migrations/*.sql migrations/postgres/*.sql
var migrations embed.FS

// dialect is what differs between SQLite and PostgreSQL beside what package pgsql rewrites.
// Everything else is one text of SQL for both; doc.go says how it has to be written.
type dialect interface {
	// migrate applies the migrations that the database lacks.
	migrate(ctx context.Context, db *sql.DB) error
	// lockEdits makes the transaction wait until no other one edits: all that f reads in
	// inTransaction stays as it is until the commit.
	lockEdits(ctx context.Context, tx *sql.Tx) error
	// lockUsage keeps others from adding usage rows until the transaction ends. It comes first
	// in a transaction: a transaction that adds rows waits with other rows locked.
	lockUsage(ctx context.Context, tx *sql.Tx) error
	// conflict reports whether the database gave up a transaction for the sake of another one.
	conflict(err error) bool
	// alone runs f, unless another instance runs one at that time.
	alone(ctx context.Context, db *sql.DB, f func() error) error
	// lead runs f, unless another instance runs one. The context of f ends where another may begin.
	lead(ctx context.Context, db *sql.DB, f func(context.Context)) error
	// rollUp replaces old usage rows by rows per hour where that can be done for many at once. It
	// returns the time before which single rows are left to merge.
	rollUp(ctx context.Context, db *sql.DB, now time.Time) (before time.Time, err error)
	// insertUsage adds rows to usage, each key once; addSums adds to the counters of
	// subscriptions, which are ordered by their ids, and returns those that have reached
	// their limits, and are not limited yet, or are near.
	insertUsage(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, doubts doubts) error
	addSums(ctx context.Context, tx *sql.Tx, sums []subscriptionSum) (over []overLimit, err error)
	// setSeen stores when nodes were heard of, each where an earlier time is stored, or one after now. A node
	// without one was registered again meanwhile, and has not spoken since.
	setSeen(ctx context.Context, tx *sql.Tx, nodes, at []int64, now int64) error
	// settle writes into the rows of nodes, to which versions before 00033 look alone, the values of the tables
	// all_nodes and node_seen that count.
	settle(ctx context.Context, db execer) error
	// raiseClients raises the revisions of the nodes that the groups reach, and returns the nodes' ids. single
	// does that for each node by itself.
	raiseClients(ctx context.Context, tx *sql.Tx, groups []int64, single func() ([]int64, error)) ([]int64, error)
	// mergeSlice is described at Store.mergeUsage.
	mergeSlice(ctx context.Context, tx *sql.Tx, into, from, until int64) error
	// size returns how many bytes the database has.
	size(ctx context.Context, db *sql.DB) (int64, error)
	// eventIDs returns the ids with which so many events are written.
	eventIDs(ctx context.Context, tx *sql.Tx, n int) ([]int64, error)
	// forUpdate stands at the end of a SELECT whose rows nobody else is to change until the commit.
	forUpdate() string
	// integrity returns ErrFaulty where the database finds itself damaged.
	integrity(ctx context.Context, db querier) error
}

// sqliteDialect has nothing to lock: there is one write connection.
type sqliteDialect struct{}

func (sqliteDialect) lockEdits(context.Context, *sql.Tx) error { return nil }
func (sqliteDialect) lockUsage(context.Context, *sql.Tx) error { return nil }
func (sqliteDialect) conflict(error) bool                      { return false }

func (sqliteDialect) alone(_ context.Context, _ *sql.DB, f func() error) error { return f() }

func (sqliteDialect) lead(ctx context.Context, _ *sql.DB, f func(context.Context)) error {
	f(ctx)
	return nil
}

func (sqliteDialect) rollUp(_ context.Context, _ *sql.DB, now time.Time) (time.Time, error) {
	return now.Add(-minuteRowsLife), nil
}

func (sqliteDialect) eventIDs(ctx context.Context, tx *sql.Tx, n int) ([]int64, error) {
	first, err := nextID(ctx, tx, "events")
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = first + int64(i)
	}
	return ids, err
}

func (sqliteDialect) forUpdate() string { return "" }

// migrate refuses a database of a later version. On PostgreSQL instances of two versions may serve at the same
// time, so that migrations there suit the version before.
func (sqliteDialect) migrate(ctx context.Context, db *sql.DB) error {
	return applyMigrations(ctx, goose.DialectSQLite3, db, "migrations", func(latest, has int64) error {
		if has > latest {
			return fmt.Errorf("a later version of node-core has used it: it has migration %d, and this version knows %d; use that version, or a backup of this version", has, latest)
		}
		return nil
	})
}

// execer is a database or a transaction that is changed.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// settleNodes is settle. It reads the rows of nodes alone where they are right already.
const settleNodes = `UPDATE nodes SET revision = ` + wanted + `, sync_status = ` + syncStatus + `, last_seen_at = ` + lastSeen + `
	WHERE revision != ` + wanted + ` OR last_seen_at IS DISTINCT FROM ` + lastSeen

func (sqliteDialect) settle(ctx context.Context, db execer) error {
	if _, err := db.ExecContext(ctx, settleNodes); err != nil {
		return fmt.Errorf("settle the rows of nodes: %w", err)
	}
	return nil
}

// settle has nothing to do: all is in the rows of nodes.
func (postgresDialect) settle(context.Context, execer) error { return nil }

// postgresDialect is for a database that several instances of Core may use.
type postgresDialect struct {
	plain *sql.DB // without the rewriting, for migrations
}

// Advisory locks are named by two numbers of 32 bits. Those of Core have lockClass, "ncor".
const (
	lockClass   = 0x6e636f72
	lockPrepare = 1 // migrations, and the rows that a new database begins with
	lockEdit    = 2
	lockUpkeep  = 3
	lockLead    = 4
)

func advisoryLock(ctx context.Context, tx *sql.Tx, lock int) error {
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d, %d)`, lockClass, lock)); err != nil {
		return fmt.Errorf("wait for other changes: %w", err)
	}
	return nil
}

func (postgresDialect) lockEdits(ctx context.Context, tx *sql.Tx) error {
	return advisoryLock(ctx, tx, lockEdit)
}

func (postgresDialect) lockUsage(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `LOCK TABLE usage IN SHARE ROW EXCLUSIVE MODE`)
	return err
}

// eventIDs returns negative numbers. The trigger number_event replaces them at the commit: other
// transactions may be committed before one that has taken its numbers earlier.
func (postgresDialect) eventIDs(_ context.Context, _ *sql.Tx, n int) ([]int64, error) {
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = -1 - rand.Int64N(math.MaxInt64)
	}
	return ids, nil
}

func (postgresDialect) forUpdate() string { return " FOR UPDATE" }

func (postgresDialect) conflict(err error) bool {
	return pgsql.IsConflict(err) || pgsql.IsDuplicate(err, "usage") // see insertUsage
}

// alone holds a lock of a transaction that does nothing else, and so keeps no row from being
// cleaned up. The server ends it with the connection, whatever becomes of this process.
func (postgresDialect) alone(ctx context.Context, db *sql.DB, f func() error) error {
	return withLock(ctx, db, lockUpkeep, func(*sql.Tx) error { return f() })
}

// withLock runs f with the lock, unless another instance has it.
func withLock(ctx context.Context, db *sql.DB, lock int, f func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // it has changed nothing, and gives back the lock
	if _, err := tx.ExecContext(ctx, `SET LOCAL idle_in_transaction_session_timeout = 0`); err != nil {
		return fmt.Errorf("keep lock %d: %w", lock, err)
	}
	var ours bool
	if err := tx.QueryRowContext(ctx, fmt.Sprintf(`SELECT pg_try_advisory_xact_lock(%d, %d)`, lockClass, lock)).Scan(&ours); err != nil {
		return fmt.Errorf("take lock %d: %w", lock, err)
	}
	if !ours {
		return nil
	}
	return f(tx)
}

// lead asks the lock's connection again and again whether it is there: the server gives the lock to
// another instance once it has lost the connection.
func (postgresDialect) lead(ctx context.Context, db *sql.DB, f func(context.Context)) error {
	return withLock(ctx, db, lockLead, func(tx *sql.Tx) error {
		leading, end := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer end()
			f(leading)
		}()
		defer func() { end(); <-ended }()
		for sleep(leading, checkLead) == nil {
			asking, cancel := context.WithTimeout(leading, checkLead)
			_, err := tx.ExecContext(asking, `SELECT 1`)
			cancel()
			if err != nil && leading.Err() == nil {
				return fmt.Errorf("keep lock %d: %w", lockLead, err)
			}
		}
		return nil
	})
}

func (d postgresDialect) migrate(ctx context.Context, _ *sql.DB) error {
	return applyMigrations(ctx, goose.DialectPostgres, d.plain, "migrations/postgres", nil)
}

// integrity has nothing to ask: PostgreSQL checks references itself, and its pages by checksums.
func (postgresDialect) integrity(context.Context, querier) error { return nil }

// applyMigrations applies the migrations of a folder. suits may refuse a database by the latest migration that it
// has; it may be nil.
func applyMigrations(ctx context.Context, of goose.Dialect, db *sql.DB, folder string, suits func(latest, has int64) error) error {
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return fmt.Errorf("find migrations: %w", err)
	}
	provider, err := goose.NewProvider(of, db, files)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if suits != nil {
		has, err := provider.GetDBVersion(ctx)
		if err != nil {
			return fmt.Errorf("read the version of the database: %w", err)
		}
		sources := provider.ListSources() // in their order
		if err := suits(sources[len(sources)-1].Version, has); err != nil {
			return err
		}
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("apply migrations: %w", err)
	}
	return nil
}
