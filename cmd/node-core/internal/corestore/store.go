package corestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite" // the driver
	sqlite3 "modernc.org/sqlite/lib"

	"nodeagent/coreclient/wire"
)

const (
	fileName   = "core.db"
	maxReaders = 8
	// readerRest is how long a connection is kept that reads nothing: it has up to 16 MB of pages.
	readerRest = 10 * time.Second
)

// ErrNotFound means that no row has the given name or id.
var ErrNotFound = errors.New("not found")

// ErrExists means that another row already has the name or tag.
var ErrExists = errors.New("exists already")

// Store is the open database. The process that opens it owns the file: no other Core may
// use the same folder (Lock sees to that). All methods may be called from any
// goroutine. The caller who opened the store closes it.
//
// # Transactions
//
// All changes go through the write connection, of which there is exactly one. database/sql
// queues the callers for it, so that a change never fails with SQLITE_BUSY because of
// another change. Code inside a transaction uses only its *sql.Tx: a call to s.write there
// would wait for the connection that its own transaction holds, and a query on s.read would
// not see the transaction's changes. The store's only
// mutexes are those of quietBeats and knownNodes.
//
// Queries use up to maxReaders other connections. In WAL mode they neither wait for the
// writer nor delay it, and each query sees the last committed state. Two queries can see
// two states; NodeRows says how it copes with that.
//
// A change of what nodes run and the new revision of those nodes are one transaction
// (raiseRevision). The methods that return node ids return those nodes; the caller passes
// them to hub.Hub.Changed after the method has returned, which is after the commit.
//
// # Crashes
//
// The database runs with synchronous=FULL: a method that has returned without an error has
// its changes on disk, and they survive a power cut. A method that was interrupted has
// changed nothing. A batch of a node is one transaction together with its idempotency key
// (applyOnce), so that a batch whose answer was lost is counted once.
//
// Upkeep works in many small transactions. It can be interrupted between any two of them,
// and the next run continues.
//
// # Secrets
//
// Auth keys and registration codes are stored only as SHA-256 hashes. Subscriptions' UUIDs
// and MTProto secrets and the private keys inside inbounds are stored as they are, because
// the nodes need them, and so are the keys with which webhooks are signed. That is why the file
// has mode 0600.
type Store struct {
	write *sql.DB // exactly one connection on SQLite, at most maxWriters on PostgreSQL
	read  *sql.DB // at most maxReaders connections
	// batches has the connections for batches of usage: write on SQLite, at most maxBatches on
	// PostgreSQL.
	batches *sql.DB
	// direct is where Listen connects to; nil on SQLite.
	direct *pgx.ConnConfig
	// dialect is what the kind of the database decides.
	dialect  dialect
	prepared bool // the database has the tables of this version
	keys     keyMaker
	// identity is the row of the table core. On SQLite only this process changes it; on
	// PostgreSQL Listen reads it again when another instance has changed it.
	identity atomic.Pointer[wire.CoreIdentity]
	quiet    quietBeats       // heartbeats that are not stored yet
	notes    linkNotes        // fetches of links that are not stored yet
	made     together[note]   // documents that were made, and are not stored yet
	reports  together[report] // of nodes, that are not stored yet
	known    knownNodes       // what quiet heartbeats need
	// enforcing wakes Enforce.
	enforcing signal
	// zone is where periods begin: the row of the table core has its name.
	zone atomic.Pointer[time.Location]
	// clock tells the time at which usage comes, subscriptions are edited and limits hold.
	clock func() time.Time
	// eventful has the transactions that have written events and are not committed yet; onEvent is
	// called after the commit.
	eventful sync.Map
	// moved has the bytes of batches that are not committed yet, by their transactions; traffic has the
	// sums, by the node's id.
	moved, traffic sync.Map
	onEvent        func()
}

// newStore makes a store without connections.
func newStore(of dialect) *Store {
	return &Store{dialect: of, enforcing: make(signal, 1), clock: time.Now, onEvent: func() {}}
}

// Open opens the database in the folder dir and applies the migrations that it lacks. It
// creates the folder (mode 0700) and the database (mode 0600) where they do not exist.
func Open(ctx context.Context, dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w; create it yourself or give another --data-dir", err)
	}
	path, err := filepath.Abs(filepath.Join(dir, fileName))
	if err != nil {
		return nil, fmt.Errorf("find data folder: %w", err)
	}
	// SQLite would create the file with a mode that the umask decides.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, openError(path, err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := newStore(sqliteDialect{})
	if s.write, err = open(path, "immediate"); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	s.batches = s.write
	if s.read, err = open(path, "deferred"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.read.SetMaxOpenConns(maxReaders)
	s.read.SetMaxIdleConns(maxReaders)
	s.read.SetConnMaxIdleTime(readerRest)
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(openError(path, err), s.Close())
	}
	return s, nil
}

// openError says what to do about an error of opening the database. A backup is advised for a
// damaged file alone: in its place it would undo what happened since.
func openError(path string, err error) error {
	advice := ""
	code := 0
	if failure, ok := errors.AsType[*sqlite.Error](err); ok {
		code = failure.Code() & 0xff // the lower byte is the primary code (sqlite.org/rescode.html)
	}
	switch {
	case code == sqlite3.SQLITE_FULL, errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT),
		// SQLite says only that it could not open or write one of its files.
		(code == sqlite3.SQLITE_CANTOPEN || code == sqlite3.SQLITE_IOERR) && isFull(filepath.Dir(path)):
		advice = "; the disk of the data folder is full: make room on it"
	case code == sqlite3.SQLITE_CORRUPT, code == sqlite3.SQLITE_NOTADB:
		advice = "; if the file is damaged, replace it with a backup"
	case code == sqlite3.SQLITE_READONLY, code == sqlite3.SQLITE_CANTOPEN, code == sqlite3.SQLITE_PERM, errors.Is(err, fs.ErrPermission):
		advice = "; run as the user that owns the data folder, which has to be writable"
	case code == sqlite3.SQLITE_IOERR, errors.Is(err, syscall.EIO):
		advice = "; repair the file system of the data folder, or make room on it"
	case code == sqlite3.SQLITE_BUSY:
		advice = "; another program holds the database, stop that first"
	}
	return fmt.Errorf("open database %s: %w%s", path, err, advice)
}

// leastSpace is how many bytes SQLite needs for the files beside an empty database.
const leastSpace = 256 << 10

// isFull tells whether the file system of a folder has no room for the files of SQLite.
func isFull(dir string) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false
	}
	return int64(fs.Bavail)*fs.Bsize < leastSpace || fs.Files > 0 && fs.Ffree == 0
}

func open(path, locking string) (*sql.DB, error) {
	options := url.Values{
		"_txlock": {locking},
		"_pragma": {
			"journal_mode(WAL)",
			"synchronous(FULL)", // what is acknowledged survives a power cut
			"busy_timeout(5000)",
			"foreign_keys(1)",
			"cache_size(-16000)", // 16 MB
		},
	}
	name := url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return db, nil
}

func (s *Store) prepare(ctx context.Context) error {
	if err := s.dialect.migrate(ctx, s.write); err != nil {
		return err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	if _, err := s.write.ExecContext(ctx, `INSERT INTO secrets (name, value) VALUES ('auth', ?) ON CONFLICT DO NOTHING`, secret); err != nil {
		return fmt.Errorf("create secret: %w", err)
	}
	if err := s.write.QueryRowContext(ctx, `SELECT value FROM secrets WHERE name = 'auth'`).Scan(&s.keys.secret); err != nil {
		return fmt.Errorf("read secret: %w", err)
	}
	s.prepared = true
	return s.loadIdentity(ctx)
}

// Close stores the times and notes that wait (quietBeats, linkNotes) and closes the database. One of SQLite suits the
// version before then.
func (s *Store) Close() error {
	errs := []error{s.closeSeen(), s.closeNotes()}
	if s.prepared {
		errs = append(errs, s.dialect.settle(context.Background(), s.write))
	}
	for _, db := range []*sql.DB{s.read, s.batches, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// inTransaction runs f in a transaction and commits it. It rolls back where f returns an error,
// and returns that error as it is. No two of these transactions run at the same time, also
// where several instances use the database: what f reads stays true until the commit. f may run
// more than once, each time in a new transaction.
func (s *Store) inTransaction(ctx context.Context, f func(tx *sql.Tx) error) error {
	defer s.known.forgetAll()
	return s.inEdit(ctx, f)
}

// inClientEdit is inTransaction where f changes users and subscriptions, and nothing of nodes but their
// revisions.
func (s *Store) inClientEdit(ctx context.Context, f func(tx *sql.Tx) error) error {
	defer s.known.forgetAllBeats()
	return s.inEdit(ctx, f)
}

// inEdit is inTransaction where f changes nothing that heartbeats read (knownNodes), or the caller
// forgets the nodes.
func (s *Store) inEdit(ctx context.Context, f func(tx *sql.Tx) error) error {
	err := s.retried(ctx, s.write, func(tx *sql.Tx) error {
		if err := s.dialect.lockEdits(ctx, tx); err != nil {
			return err
		}
		if err := mark(ctx, tx); err != nil {
			return err
		}
		return f(tx)
	})
	if r := requestOf(ctx); r != nil && err == nil {
		r.marked = true
	}
	return err
}

// maxTries bounds how often a transaction is tried that the database gives up for another one.
const maxTries = 5

// retried is inTransaction for transactions that others may run beside on PostgreSQL, on one of
// the pool's connections. f has to lock what it relies on: an UPDATE locks its rows until the
// commit.
func (s *Store) retried(ctx context.Context, pool *sql.DB, f func(tx *sql.Tx) error) error {
	for try := 1; ; try++ {
		err := s.transaction(ctx, pool, f)
		if err == nil || try == maxTries || !s.dialect.conflict(err) {
			return err
		}
	}
}

func (s *Store) transaction(ctx context.Context, pool *sql.DB, f func(tx *sql.Tx) error) error {
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer s.eventful.Delete(tx)
	defer s.moved.Delete(tx)
	defer tx.Rollback() //nolint:errcheck // does nothing after a commit
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if m, is := s.moved.Load(tx); is {
		s.countTraffic(m.(movedBytes))
	}
	if _, is := s.eventful.Load(tx); is {
		s.onEvent()
	}
	return nil
}

// orNotFound replaces sql.ErrNoRows by ErrNotFound and says what was looked for. Any other
// error, and nil, is returned as it is.
func orNotFound(err error, what string, name any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s %v: %w", what, name, ErrNotFound)
	}
	return err
}

// collect reads all rows of a query and closes it. It takes the results of QueryContext, the
// error too. The slice is never nil where the error is.
func collect[T any](rows *sql.Rows, err error, scan func(*sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []T{} // not nil: JSON shows [] then and not null
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// collectMap adds the rows of a query, which have two columns, to a map. It is otherwise like collect.
func collectMap[K comparable, V any](rows *sql.Rows, err error, into map[K]V) error {
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var key K
		var value V
		err := r.Scan(&key, &value)
		into[key] = value
		return struct{}{}, err
	})
	return err
}

// millis is how times are stored: Unix milliseconds.
func millis(t time.Time) int64 { return t.UnixMilli() }

// stored returns a time as it is read when it was stored.
func stored(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

func fromMillis(ms sql.NullInt64) *time.Time {
	if !ms.Valid {
		return nil
	}
	t := time.UnixMilli(ms.Int64).UTC()
	return &t
}
