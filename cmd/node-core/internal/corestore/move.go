package corestore

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"nodeagent/cmd/node-core/internal/corestore/pgsql"
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

// copy copies a table and compares the copy.
func (m *mover) copy(ctx context.Context, t table, toPostgres bool) error {
	where := ""
	if t.name == "secrets" { // the certificate goes where the target keeps it
		where = ` WHERE name NOT LIKE 'tls.%'`
	}
	query := `SELECT ` + strings.Join(t.columns, ", ") + ` FROM ` + t.name + where
	rows, err := m.in.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	var read digest
	next := func() ([]any, error) {
		values, err := scanAny(rows, len(t.columns))
		if values == nil || err != nil {
			return nil, err
		}
		for i, v := range values {
			if s, is := v.(string); is && toPostgres {
				values[i] = pgsql.Text(s)
			}
		}
		read.add(values)
		if read.rows%progressRows == 0 {
			m.progress(t.name, read.rows)
		}
		return values, nil
	}
	if toPostgres {
		_, err = m.out.ExecContext(ctx, pgsql.Copy, pgsql.Stream{Table: t.name, Columns: t.columns, Next: next})
	} else {
		err = insertAll(ctx, m.out, t, next)
	}
	if err != nil {
		return err
	}
	written, err := digestOf(ctx, m.out, query, len(t.columns))
	if err != nil {
		return fmt.Errorf("read the copy: %w", err)
	}
	if written != read {
		return fmt.Errorf("the copy is not the same: %d rows were read and %d are there, or they differ", read.rows, written.rows)
	}
	m.moved = append(m.moved, MovedTable{t.name, read.rows})
	m.progress(t.name, read.rows)
	return nil
}

// scanAny reads the next row; nil after the last one.
func scanAny(rows *sql.Rows, n int) ([]any, error) {
	if !rows.Next() {
		return nil, rows.Err()
	}
	values, to := make([]any, n), make([]any, n)
	for i := range to {
		to[i] = &values[i]
	}
	return values, rows.Scan(to...)
}

func insertAll(ctx context.Context, tx *sql.Tx, t table, next func() ([]any, error)) error {
	insert, err := tx.PrepareContext(ctx, `INSERT INTO `+t.name+` (`+strings.Join(t.columns, ", ")+`) VALUES `+placeholders(len(t.columns), 1))
	if err != nil {
		return err
	}
	defer insert.Close()
	for {
		values, err := next()
		if values == nil || err != nil {
			return err
		}
		if _, err := insert.ExecContext(ctx, values...); err != nil {
			return err
		}
	}
}

// digest is the same for the same rows in any order.
type digest struct {
	rows int64
	sum  uint64 // of the rows' hashes
}

func (d *digest) add(values []any) {
	h := fnv.New64a()
	var size [9]byte
	write := func(kind byte, content []byte) {
		size[0] = kind
		binary.LittleEndian.PutUint64(size[1:], uint64(len(content)))
		_, _ = h.Write(size[:])
		_, _ = h.Write(content)
	}
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			write('n', nil)
		case []byte:
			write('b', v)
		case string:
			write('s', []byte(v))
		default:
			write('i', fmt.Append(nil, v))
		}
	}
	d.rows++
	d.sum += h.Sum64()
}

func digestOf(ctx context.Context, tx *sql.Tx, query string, columns int) (d digest, err error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return d, err
	}
	defer rows.Close()
	for {
		values, err := scanAny(rows, columns)
		if values == nil || err != nil {
			return d, err
		}
		d.add(values)
	}
}

// copyIDs copies the greatest ids that were ever given out. PostgreSQL has those of tables with an
// identity in sequences.
func (m *mover) copyIDs(ctx context.Context, fromPostgres, toPostgres bool) error {
	identities := `SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attidentity != '' AND relnamespace = current_schema()::regnamespace`
	name := func(r *sql.Rows) (name string, err error) { return name, r.Scan(&name) }
	last := map[string]int64{}
	rows, err := m.in.QueryContext(ctx, `SELECT name, seq FROM sqlite_sequence`)
	if _, err := collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var table string
		var seq int64
		err := r.Scan(&table, &seq)
		last[table] = seq
		return struct{}{}, err
	}); err != nil {
		return err
	}
	if fromPostgres {
		rows, err := m.in.QueryContext(ctx, identities)
		tables, err := collect(rows, err, name)
		if err != nil {
			return err
		}
		for _, table := range tables {
			var seq sql.NullInt64
			if err := m.in.QueryRowContext(ctx, `SELECT pg_sequence_last_value(pg_get_serial_sequence(?, 'id'))`, table).Scan(&seq); err != nil {
				return err
			}
			if seq.Valid {
				last[table] = seq.Int64
			}
		}
	}
	sequences := map[string]bool{}
	if toPostgres {
		rows, err := m.out.QueryContext(ctx, identities)
		tables, err := collect(rows, err, name)
		if err != nil {
			return err
		}
		for _, table := range tables {
			sequences[table] = true
		}
	}
	for table, seq := range last {
		if sequences[table] {
			if _, err := m.out.ExecContext(ctx, `SELECT setval(pg_get_serial_sequence(?, 'id'), ?)`, table, seq); err != nil {
				return err
			}
			continue
		}
		if strings.HasPrefix(table, "goose_") {
			continue
		}
		for _, statement := range []string{`DELETE FROM sqlite_sequence WHERE name = ?1`, `INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)`} {
			args := []any{table, seq}[:strings.Count(statement, "?")]
			if _, err := m.out.ExecContext(ctx, statement, args...); err != nil {
				return err
			}
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
