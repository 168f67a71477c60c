package corestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// BackupPostgres writes a backup of a PostgreSQL to a new file, in the same form as Backup: a database
// of SQLite. The database may be in use meanwhile: the copy has its state at one moment.
func BackupPostgres(ctx context.Context, from Postgres, file string) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("make the backup: %w: %s; give a file that does not exist yet", fs.ErrExist, file)
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".node-core-backup-")
	if err != nil {
		return fmt.Errorf("make the backup: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	inUse := func(ctx context.Context, p Place) (*Store, func(), error) {
		s, err := OpenPostgres(ctx, p.Postgres)
		return s, func() { _ = s.Close() }, err
	}
	if _, err := move(ctx, Place{Postgres: from}, Place{Dir: dir}, nil, inUse); err != nil {
		return err
	}
	return Backup(ctx, dir, file)
}

// RestorePostgres writes a backup, or a plain copy of a database of SQLite, to an empty PostgreSQL. It
// raises the epoch over that of the backup.
func RestorePostgres(ctx context.Context, file string, to Postgres, now time.Time) (r Restored, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(file), ".node-core-restore-")
	if err != nil {
		return r, fmt.Errorf("read the backup: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if r, err = Restore(ctx, file, dir, now); err != nil {
		return r, err
	}
	_, err = Move(ctx, Place{Dir: dir}, Place{Postgres: to}, nil)
	return r, err
}
