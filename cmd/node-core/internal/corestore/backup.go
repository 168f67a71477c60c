package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// A backup is one file: a copy of the database with one table more, backup_files. That table
// has the other files of the data folder which nodes depend on (backupFiles).

// backupFiles are the files of the data folder that a backup has beside the database. Nodes
// know the certificate by its pin.
var backupFiles = []struct {
	name string
	mode fs.FileMode
}{{"tls.key", 0o600}, {"tls.crt", 0o644}}

// openExisting opens a database file as it is, without migrations. The caller closes it.
func openExisting(path string) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	db, err := open(path, "immediate")
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// Backup writes a backup of the data folder dir to a new file with mode 0600. The database may
// be in use meanwhile: the copy has its state at one moment. On an error there is no file.
func Backup(ctx context.Context, dir, file string) (err error) {
	db, err := openExisting(filepath.Join(dir, fileName))
	if err != nil {
		return fmt.Errorf("read the database: %w; is this the right --data-dir?", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	created, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the backup: %w; give a file that does not exist yet", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeDatabase(file))
		}
	}()
	if err := created.Close(); err != nil {
		return fmt.Errorf("make the backup: %w", err)
	}
	// VACUUM INTO reads one state and takes an empty file (sqlite.org/lang_vacuum.html).
	if _, err := db.ExecContext(ctx, `VACUUM INTO ?`, file); err != nil {
		return fmt.Errorf("copy the database to %s: %w", file, err)
	}
	if err := addFiles(ctx, dir, file); err != nil {
		return fmt.Errorf("copy the certificate to %s: %w", file, err)
	}
	return syncFile(file)
}

func addFiles(ctx context.Context, dir, file string) (err error) {
	copied, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	// A database that is itself a backup, copied into its place, has the table.
	if _, err := copied.ExecContext(ctx, `DROP TABLE IF EXISTS backup_files; CREATE TABLE backup_files (name TEXT PRIMARY KEY, content BLOB NOT NULL)`); err != nil {
		return err
	}
	for _, f := range backupFiles {
		content, err := os.ReadFile(filepath.Join(dir, f.name))
		if errors.Is(err, fs.ErrNotExist) { // Core serves another certificate, or plain HTTP
			continue
		} else if err != nil {
			return err
		}
		if _, err := copied.ExecContext(ctx, `INSERT INTO backup_files VALUES (?, ?)`, f.name, content); err != nil {
			return err
		}
	}
	return nil
}

// Restored says what Restore has done.
type Restored struct {
	Epoch   int64     `json:"epoch"`             // of the restored database
	MadeAt  time.Time `json:"madeAt"`            // UTC; the newest change of a node, user or usage row in the backup
	Kept    string    `json:"kept,omitempty"`    // the file with the database that was there before; empty for none
	Missing []string  `json:"missing,omitempty"` // files that neither the backup nor the folder has
}

// Restore replaces the database in the data folder dir by a backup or by a plain copy of a
// database. No Core may run there. It raises the epoch over that of the backup and that of the
// database in the folder, so that nodes and operators can see that the database is not the one
// from before. What was there is kept beside it under other names. On an error the folder's
// database and certificate are as they were.
func Restore(ctx context.Context, file, dir string, now time.Time) (r Restored, err error) {
	path := filepath.Join(dir, fileName)
	if same, err := sameFile(file, path); err != nil || same {
		return r, errors.Join(err, errorIf(same, "%s is the database itself; give a backup", file))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, fmt.Errorf("create data folder: %w", err)
	}
	fresh := path + ".restoring"
	if err := removeDatabase(fresh); err != nil {
		return r, fmt.Errorf("remove what an earlier restore left: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeDatabase(fresh))
		}
	}()
	if err := copyDatabase(ctx, file, fresh); err != nil {
		return r, fmt.Errorf("read the backup %s: %w", file, err)
	}
	suffix := ".before-restore-" + now.UTC().Format("20060102T150405.000Z")
	before, damaged := finishLog(ctx, path)
	files, err := prepareRestored(ctx, fresh, before, now, &r)
	if err != nil {
		return r, fmt.Errorf("read the backup %s: %w", file, err)
	}
	if err := errors.Join(syncFile(fresh), giveToOwner(dir, fresh)); err != nil {
		return r, err
	}
	if damaged != nil { // with its log, which cannot be brought into it
		r.Kept, err = moveAway(path, suffix)
	} else {
		r.Kept, err = keep(path, suffix)
	}
	if err != nil {
		return r, err
	}
	if err := restoreFiles(files, dir, suffix, &r); err != nil {
		return r, err
	}
	if err := os.Rename(fresh, path); err != nil {
		return r, errors.Join(fmt.Errorf("put the restored database in place: %w", err), putBack(files, dir, suffix))
	}
	return r, syncFile(dir)
}

// finishLog brings the write-ahead log of a database into its file, so that the file is all of
// it. It returns the database's epoch; 0 where there is no database, or one of a version that
// had no epochs.
func finishLog(ctx context.Context, path string) (epoch int64, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	db, err := openExisting(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		return 0, err
	}
	var has bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'core')`).Scan(&has); err != nil || !has {
		return 0, err
	}
	err = db.QueryRowContext(ctx, `SELECT epoch FROM core`).Scan(&epoch)
	return epoch, err
}

// keep gives a file a second name with the suffix, and returns that; empty where there is no
// file. A file that has that name already is an error.
func keep(path, suffix string) (string, error) {
	kept := path + suffix
	switch err := os.Link(path, kept); {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("keep %s under another name: %w", path, err)
	}
	return kept, nil
}

// moveAway renames a damaged database with its log. It returns the new name.
func moveAway(path, suffix string) (string, error) {
	for _, ending := range databaseFiles {
		if err := os.Rename(path+ending, path+suffix+ending); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return path + suffix, fmt.Errorf("keep the damaged database: %w", err)
		}
	}
	return path + suffix, nil
}

// restoreFiles writes the files of a backup into the folder. Those that it replaces are kept
// with the suffix. On an error they are put back.
func restoreFiles(files map[string][]byte, dir, suffix string, r *Restored) error {
	for _, f := range backupFiles {
		content, has := files[f.name]
		target := filepath.Join(dir, f.name)
		if !has {
			if _, err := os.Stat(target); err != nil {
				r.Missing = append(r.Missing, f.name)
			}
			continue
		}
		_, err := keep(target, suffix)
		if err == nil {
			err = renameio.WriteFile(target, content, f.mode, renameio.WithTempDir(dir))
		}
		if err == nil {
			err = giveToOwner(dir, target)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("restore %s: %w", f.name, err), putBack(files, dir, suffix))
		}
	}
	return nil
}

// putBack undoes restoreFiles.
func putBack(files map[string][]byte, dir, suffix string) error {
	var errs []error
	for name := range files {
		target := filepath.Join(dir, name)
		if err := os.Rename(target+suffix, target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("put %s back: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// giveToOwner makes the owner of the data folder the owner of a file in it. Root restores, and
// the service runs as another user. Without the right to do that, the file stays as it is.
func giveToOwner(dir, path string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, int(stat.Uid), int(stat.Gid))
}

// copyDatabase copies a database that may have a write-ahead log to a new file with mode 0600.
func copyDatabase(ctx context.Context, from, to string) error {
	if _, err := os.Stat(from); err != nil {
		return err
	}
	created, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := created.Close(); err != nil {
		return err
	}
	if err := checkHeader(from); err != nil {
		return err
	}
	// A plain copy of a running Core's file has a log beside it, which SQLite reads.
	db, err := sql.Open("sqlite", from)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, to)
	return errors.Join(err, db.Close())
}

// checkHeader returns an error for a file that is no SQLite database
// (sqlite.org/fileformat.html, 1.3.1).
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const magic = "SQLite format 3\x00"
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f, head); err != nil || string(head) != magic {
		return errors.New("it is not a backup of node-core, and not its database")
	}
	return nil
}

// prepareRestored checks a copied database, takes the other files out of it, and raises its
// epoch over the one before.
func prepareRestored(ctx context.Context, path string, before int64, now time.Time, r *Restored) (files map[string][]byte, err error) {
	db, err := openExisting(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var tables int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('nodes', 'subscriptions', 'usage', 'goose_db_version')`).Scan(&tables); err != nil {
		return nil, err
	}
	if tables != 4 {
		return nil, errors.New("it is a database, and not node-core's: tables are missing")
	}
	if err := (sqliteDialect{}).integrity(ctx, db); err != nil {
		return nil, err
	}
	if files, err = takeFiles(ctx, db); err != nil {
		return nil, err
	}
	migrated := newStore(sqliteDialect{})
	migrated.write, migrated.read, migrated.batches = db, db, db
	if err := migrated.prepare(ctx); err != nil {
		return nil, err
	}
	lost := millis(time.Now())
	if err := migrated.transaction(ctx, db, func(tx *sql.Tx) error {
		if err := migrated.changeIdentity(ctx, tx, `UPDATE core SET epoch = max(epoch, ?) + 1, noticed_at = ?, `+loseEvents, before, millis(now), lost); err != nil {
			return err
		}
		return numberEventsAfter(ctx, tx, lost)
	}); err != nil {
		return nil, err
	}
	r.Epoch = migrated.Identity().Epoch
	var newest sql.NullInt64
	err = db.QueryRowContext(ctx, `SELECT max(at) FROM (SELECT max(created_at) AS at FROM users UNION ALL SELECT max(last_seen_at) FROM nodes UNION ALL SELECT max(at) FROM node_seen
		UNION ALL SELECT max(created_at) FROM nodes UNION ALL SELECT max(recorded_at) FROM usage) changes`).Scan(&newest)
	if at := fromMillis(newest); at != nil {
		r.MadeAt = *at
	}
	return files, err
}

// takeFiles removes the table backup_files and returns its content.
func takeFiles(ctx context.Context, db *sql.DB) (map[string][]byte, error) {
	var has bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'backup_files')`).Scan(&has); err != nil || !has {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, `SELECT name, content FROM backup_files`)
	files := map[string][]byte{}
	if err := collectMap(rows, err, files); err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `DROP TABLE backup_files`)
	return files, err
}

// databaseFiles are the endings of the files of one database.
var databaseFiles = []string{"-wal", "-shm", ""}

func removeDatabase(path string) error {
	var errs []error
	for _, suffix := range databaseFiles {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func sameFile(a, b string) (bool, error) {
	left, err := os.Stat(a)
	if err != nil {
		return false, fmt.Errorf("read the backup: %w", err)
	}
	right, err := os.Stat(b)
	return err == nil && os.SameFile(left, right), nil
}

func errorIf(is bool, format string, args ...any) error {
	if !is {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// syncFile writes a file, or the names in a folder, to the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("write to the disk: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
