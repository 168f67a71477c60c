package corestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver
)

const (
	fileName   = "core.db"
	maxReaders = 8
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrNotFound means that there is no such row.
var ErrNotFound = errors.New("not found")

// ErrExists means that the name or tag is taken.
var ErrExists = errors.New("exists already")

// Store is the open database. Its methods may be called by any goroutine.
type Store struct {
	write *sql.DB // one connection
	read  *sql.DB
	keys  keyMaker
}

// Open opens or makes the database in dir, which it creates with mode 0700,
// and brings its tables up to date.
func Open(ctx context.Context, dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w; create it or give another --data-dir", err)
	}
	path, err := filepath.Abs(filepath.Join(dir, fileName))
	if err != nil {
		return nil, fmt.Errorf("find data folder: %w", err)
	}
	// Made here, so that nobody else can read it from the first moment on.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open database: %w; run as the user that owns the data folder", err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{}
	if s.write, err = open(path, "immediate"); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = open(path, "deferred"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.read.SetMaxOpenConns(maxReaders)
	s.read.SetMaxIdleConns(maxReaders)
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w; where it is damaged, put a copy of it in place", path, err), s.Close())
	}
	return s, nil
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
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("find migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, files)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring tables up to date: %w", err)
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	if _, err := s.write.ExecContext(ctx, `INSERT INTO secrets (name, value) VALUES ('auth', ?) ON CONFLICT DO NOTHING`, secret); err != nil {
		return fmt.Errorf("make secret: %w", err)
	}
	if err := s.write.QueryRowContext(ctx, `SELECT value FROM secrets WHERE name = 'auth'`).Scan(&s.keys.secret); err != nil {
		return fmt.Errorf("read secret: %w", err)
	}
	return nil
}

// Close closes the database.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// inTransaction runs f in a write transaction.
func (s *Store) inTransaction(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// orNotFound turns "no rows" into ErrNotFound with a name.
func orNotFound(err error, what string, name any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s %v: %w", what, name, ErrNotFound)
	}
	return err
}

// collect reads all rows of a query.
func collect[T any](rows *sql.Rows, err error, scan func(*sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []T{} // an empty answer is [] in JSON
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func fromMillis(ms sql.NullInt64) *time.Time {
	if !ms.Valid {
		return nil
	}
	t := time.UnixMilli(ms.Int64).UTC()
	return &t
}
