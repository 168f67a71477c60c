package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// mover copies the source to the target: it reads in one transaction and writes in one.
type mover struct {
	source, target *Store
	in, out        *sql.Tx
	progress       func(table string, rows int64)
	moved          []MovedTable
}

func (m *mover) run(ctx context.Context, from, to Place) (err error) {
	if m.in, err = m.source.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	defer m.in.Rollback() //nolint:errcheck // nothing is changed
	tables, err := m.tables(ctx)
	if err != nil {
		return fmt.Errorf("read the tables: %w", err)
	}
	if to.isPostgres() {
		if err := m.makePartitions(ctx); err != nil {
			return err
		}
	}
	if m.out, err = m.target.write.BeginTx(ctx, nil); err != nil {
		return fmt.Errorf("write the target: %w", err)
	}
	defer m.out.Rollback() //nolint:errcheck // does nothing after a commit
	if err := m.clear(ctx, tables); err != nil {
		return fmt.Errorf("open the target: %w", err)
	}
	for _, t := range tables {
		if err := m.copy(ctx, t, to.isPostgres()); err != nil {
			return fmt.Errorf("copy the table %s: %w", t.name, err)
		}
	}
	// PostgreSQL's other instances may be of the version before.
	if _, err := m.out.ExecContext(ctx, settleNodes); err != nil {
		return fmt.Errorf("settle the rows of nodes: %w", err)
	}
	if err := m.copyIDs(ctx, from.isPostgres(), to.isPostgres()); err != nil {
		return fmt.Errorf("copy the last ids: %w", err)
	}
	if err := m.copyCertificate(ctx, from, to); err != nil {
		return fmt.Errorf("copy the certificate: %w", err)
	}
	if err := m.out.Commit(); err != nil {
		return fmt.Errorf("commit the copy: %w", err)
	}
	return nil
}

// table is one that both databases have, and its columns without generated ones.
type table struct {
	name    string
	columns []string
}

// tables returns the tables, each after those that it refers to. An empty SQLite in memory would
// do for it; one of the two is one. Triggers fill client_changes of the target.
func (m *mover) tables(ctx context.Context) ([]table, error) {
	columns := `SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE 'goose_%' AND m.name != 'client_changes' ORDER BY m.name, c.cid`
	references := `SELECT m.name, f."table" FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`
	if m.source.direct != nil {
		columns = `SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
			WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN ('sqlite_sequence', 'goose_db_version', 'client_changes') ORDER BY c.relname, a.attnum`
		references = `SELECT c.relname, f.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
			WHERE k.contype = 'f' AND c.relnamespace = current_schema()::regnamespace`
	}
	pair := func(r *sql.Rows) (p [2]string, err error) { return p, r.Scan(&p[0], &p[1]) }
	rows, err := m.in.QueryContext(ctx, columns)
	all, err := collect(rows, err, pair)
	if err != nil {
		return nil, err
	}
	rows, err = m.in.QueryContext(ctx, references)
	parents, err := collect(rows, err, pair)
	if err != nil {
		return nil, err
	}
	byName := map[string]*table{}
	var names []string
	for _, c := range all {
		if byName[c[0]] == nil {
			byName[c[0]] = &table{name: c[0]}
			names = append(names, c[0])
		}
		byName[c[0]].columns = append(byName[c[0]].columns, c[1])
	}
	var ordered []table
	done := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if done[name] || byName[name] == nil {
			return
		}
		done[name] = true
		for _, p := range parents {
			if p[0] == name {
				visit(p[1])
			}
		}
		ordered = append(ordered, *byName[name])
	}
	for _, name := range names {
		visit(name)
	}
	return ordered, nil
}

// fillers are tables one of which has rows wherever a Core was used. Others have rows in a new database.
var fillers = []string{"nodes", "users", "plans", "usage", "removed_names", "session_events"}

// clear makes sure that the target is new, and removes what a new database has.
func (m *mover) clear(ctx context.Context, tables []table) error {
	for _, name := range fillers {
		var has bool
		if err := m.out.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM `+name+`)`).Scan(&has); err != nil {
			return err
		}
		if has {
			return fmt.Errorf("%w: there are rows in %s; give a new database", ErrNotEmpty, name)
		}
	}
	for _, t := range slices.Backward(tables) {
		if _, err := m.out.ExecContext(ctx, `DELETE FROM `+t.name); err != nil {
			return err
		}
	}
	return nil
}

// copyCertificate brings the certificate from the source's folder or table into that of the target.
func (m *mover) copyCertificate(ctx context.Context, from, to Place) error {
	for _, f := range backupFiles {
		var content []byte
		var err error
		if from.isPostgres() {
			err = m.in.QueryRowContext(ctx, `SELECT value FROM secrets WHERE name = ?`, f.name).Scan(&content)
		} else {
			content, err = os.ReadFile(filepath.Join(from.Dir, f.name))
		}
		if errors.Is(err, sql.ErrNoRows) || errors.Is(err, fs.ErrNotExist) {
			continue // Core serves another certificate
		}
		if err != nil {
			return err
		}
		if to.isPostgres() {
			_, err = m.out.ExecContext(ctx, `INSERT INTO secrets (name, value) VALUES (?, ?)`, f.name, content)
		} else {
			err = renameio.WriteFile(filepath.Join(to.Dir, f.name), content, f.mode, renameio.WithTempDir(to.Dir))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makePartitions makes the partitions of all months that have rows.
func (m *mover) makePartitions(ctx context.Context) error {
	var oldest sql.NullInt64
	if err := m.in.QueryRowContext(ctx, `SELECT min(recorded_at) FROM usage WHERE recorded_at > ?`, millis(time.Now().AddDate(-20, 0, 0))).Scan(&oldest); err != nil {
		return fmt.Errorf("read the oldest usage: %w", err)
	}
	if !oldest.Valid {
		return nil
	}
	return makeMonths(ctx, m.target.write, time.UnixMilli(oldest.Int64), time.Now())
}
