package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// ShareCertificate makes the certificate in the data folder dir that of all instances on one
// PostgreSQL: nodes know Core by its pin. make makes one in the folder, where neither it nor the
// database has any. A certificate of the folder that is not the database's is kept under another
// name. On SQLite there is one instance, and nothing to share.
func (s *Store) ShareCertificate(ctx context.Context, dir string, make func() error) error {
	if s.direct == nil {
		return nil
	}
	err := s.inTransaction(ctx, func(tx *sql.Tx) error {
		stored := map[string][]byte{}
		for _, f := range backupFiles {
			var content []byte
			err := tx.QueryRowContext(ctx, `SELECT value FROM secrets WHERE name = ?`, f.name).Scan(&content)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if err == nil {
				stored[f.name] = content
			}
		}
		if len(stored) == len(backupFiles) {
			return takeCertificate(dir, stored, time.Now())
		}
		if err := make(); err != nil {
			return err
		}
		for _, f := range backupFiles {
			content, err := os.ReadFile(filepath.Join(dir, f.name))
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, f.name, content); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("share Core's certificate with other instances: %w", err)
	}
	return nil
}

// takeCertificate writes the files of the database into the folder.
func takeCertificate(dir string, stored map[string][]byte, now time.Time) error {
	for _, f := range backupFiles {
		path := filepath.Join(dir, f.name)
		has, err := os.ReadFile(path)
		switch {
		case err == nil && string(has) == string(stored[f.name]):
			continue
		case err == nil:
			if err := os.Rename(path, path+".replaced-"+now.UTC().Format("20060102T150405.000Z")); err != nil {
				return err
			}
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if err := renameio.WriteFile(path, stored[f.name], f.mode, renameio.WithTempDir(dir)); err != nil {
			return err
		}
	}
	return nil
}
