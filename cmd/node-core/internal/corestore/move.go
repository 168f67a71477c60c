package corestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Place is where a database is: a data folder with SQLite's, or a PostgreSQL.
type Place struct {
	Dir      string
	Postgres Postgres
}

func (p Place) isPostgres() bool { return p.Postgres.URL != "" }

// ErrNotEmpty means that a database has something already.
var ErrNotEmpty = errors.New("it is not empty")

// MovedTable is what Move has done with a table.
type MovedTable struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
}

// progressRows is how many rows are copied between two calls of progress.
const progressRows = 50_000

// Move copies everything from one database to an empty one, with the ids that were given out and
// the certificate, in one transaction. It reads the copy again and compares each row. On an error the
// target has nothing. No Core may use either of them: one of SQLite is locked, and a PostgreSQL that
// others are connected to as node-core is refused. progress may be nil.
func Move(ctx context.Context, from, to Place, progress func(table string, rows int64)) (moved []MovedTable, err error) {
	return move(ctx, from, to, progress, openAlone)
}

// move is Move; openSource opens the source.
func move(ctx context.Context, from, to Place, progress func(table string, rows int64), openSource func(context.Context, Place) (*Store, func(), error)) (moved []MovedTable, err error) {
	if progress == nil {
		progress = func(string, int64) {}
	}
	if !to.isPostgres() {
		if _, err := os.Stat(filepath.Join(to.Dir, fileName)); err == nil {
			return nil, fmt.Errorf("open the target %s: %w; give a folder without a database", to.Dir, ErrNotEmpty)
		}
	}
	if !from.isPostgres() {
		if _, err := os.Stat(filepath.Join(from.Dir, fileName)); err != nil {
			return nil, fmt.Errorf("open the source: %w", err)
		}
	}
	source, closeSource, err := openSource(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("open the source: %w", err)
	}
	defer closeSource()
	target, closeTarget, err := openAlone(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("open the target: %w", err)
	}
	defer func() {
		closeTarget()
		if err != nil && !to.isPostgres() { // it was made above
			err = errors.Join(err, removeDatabase(filepath.Join(to.Dir, fileName)))
		}
	}()
	m := mover{source: source, target: target, progress: progress}
	if err := m.run(ctx, from, to); err != nil {
		return nil, err
	}
	return m.moved, nil
}

// openAlone opens a database and makes sure that no Core uses it.
func openAlone(ctx context.Context, p Place) (*Store, func(), error) {
	if p.isPostgres() {
		p.Postgres.application = applicationName + " migrate-db"
		s, err := OpenPostgres(ctx, p.Postgres)
		if err != nil {
			return nil, nil, err
		}
		var others int
		if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = ?`, applicationName).Scan(&others); err != nil {
			return nil, nil, errors.Join(err, s.Close())
		}
		if others > 0 {
			return nil, nil, errors.Join(errors.New("node-core is connected to it; stop all instances first"), s.Close())
		}
		return s, func() { _ = s.Close() }, nil
	}
	unlock, err := Lock(p.Dir)
	if err != nil {
		return nil, nil, err
	}
	s, err := Open(ctx, p.Dir)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return s, func() { _ = s.Close(); unlock() }, nil
}
