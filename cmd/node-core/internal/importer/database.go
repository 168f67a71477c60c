package importer

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	maxFile  = 4 << 30   // bytes of a database or of its write-ahead log
	maxValue = 256 << 20 // bytes of one value: 3x-ui keeps all clients of an inbound in one
	maxRead  = 2 << 30   // bytes of all values
	maxRows  = 1_000_000 // of one table
)

// database is a copy of a panel's SQLite file. The file itself is only read, and without locks: the
// panel may run. What SQLite has to do to open it, such as taking over a write-ahead log, it does to
// the copy.
type database struct {
	dir  string // of the copy
	db   *sql.DB
	conn *sql.Conn
	read int64 // bytes of values so far
}

// openDatabase copies the file at path and opens the copy. The caller closes it.
func openDatabase(ctx context.Context, path string) (_ *database, err error) {
	d := &database{}
	if d.dir, err = os.MkdirTemp("", "node-core-import-"); err != nil {
		return nil, fmt.Errorf("copy the database: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	copied := filepath.Join(d.dir, "panel.db")
	if err := copyFile(path, copied); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	for _, more := range []string{"-wal", "-journal"} { // changes that are not in the file yet
		if err := copyFile(path+more, copied+more); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read %s: %w", path+more, err)
		}
	}
	if err := isSQLite(copied); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	options := url.Values{"_pragma": {
		"trusted_schema(0)", // functions in the schema do nothing
		"cell_size_check(1)",
		"busy_timeout(1000)",
		"temp_store(2)",
	}}
	name := url.URL{Scheme: "file", Path: copied, RawQuery: options.Encode()}
	if d.db, err = sql.Open("sqlite", name.String()); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	d.db.SetMaxOpenConns(1)
	if d.conn, err = d.db.Conn(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w; the file is damaged: copy it while the panel is stopped", path, err)
	}
	if _, err := sqlite.Limit(d.conn, sqlite3.SQLITE_LIMIT_LENGTH, maxValue); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := d.check(ctx); err != nil {
		return nil, fmt.Errorf("read %s: %w; the file is damaged, or was copied while the panel wrote: copy it while the panel is stopped", path, err)
	}
	return d, nil
}

// check lets SQLite look at the structure of the file, and makes it read-only.
func (d *database) check(ctx context.Context) error {
	var found string
	if err := d.conn.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&found); err != nil {
		return err
	}
	if found != "ok" {
		return errors.New(printable(found, 200))
	}
	_, err := d.conn.ExecContext(ctx, `PRAGMA query_only = 1`)
	return err
}

func (d *database) close() error {
	var errs []error
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// copyFile copies a regular file that is not too large.
func copyFile(from, to string) (err error) {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	if info.Size() > maxFile {
		return fmt.Errorf("it has %d bytes, want at most %d", info.Size(), int64(maxFile))
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxFile))
	return errors.Join(err, out.Close())
}

// isSQLite returns an error where the file does not begin as a database of SQLite does.
func isSQLite(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	head := make([]byte, 16)
	if _, err := io.ReadFull(file, head); err != nil || !bytes.Equal(head, []byte("SQLite format 3\x00")) {
		return errors.New("it is no database of SQLite")
	}
	return nil
}

// columns returns the columns of a table; none where there is no such table. A view, a virtual
// table and a generated column could run code of the file's author and are refused.
func (d *database) columns(ctx context.Context, table string) (names []string, err error) {
	var kind, text string
	err = d.conn.QueryRowContext(ctx, `SELECT type, coalesce(sql, '') FROM sqlite_master WHERE name = ? AND type IN ('table', 'view')`, table).Scan(&kind, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look for the table %s: %w", table, err)
	}
	if kind != "table" || strings.HasPrefix(strings.ToUpper(strings.TrimSpace(text)), "CREATE VIRTUAL") {
		return nil, fmt.Errorf("%s is a view or a virtual table, as no panel makes them: the file is not taken", table)
	}
	rows, err := d.conn.QueryContext(ctx, `SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0`, table)
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// errNoTable means that the database does not have a table.
var errNoTable = errors.New("there is no such table")

// each reads a table and calls do for each row. needed are columns without which the table can't be
// understood; the others are read where they are there. The error is errNoTable where there is no
// table.
func (d *database) each(ctx context.Context, table string, needed, others []string, do func(*row) error) error {
	there, err := d.columns(ctx, table)
	if err != nil {
		return err
	}
	if there == nil {
		return fmt.Errorf("table %s: %w", table, errNoTable)
	}
	for _, name := range needed {
		if !slices.Contains(there, name) {
			return fmt.Errorf("table %s has no column %s: the database is of another version, or half-migrated; start the panel once, so that it migrates its database", table, name)
		}
	}
	var names []string
	for _, name := range append(slices.Clone(needed), others...) {
		if slices.Contains(there, name) {
			names = append(names, name)
		}
	}
	rows, err := d.conn.QueryContext(ctx, `SELECT "`+strings.Join(names, `", "`)+`" FROM "`+table+`"`)
	if err != nil {
		return fmt.Errorf("read the table %s: %w", table, err)
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		if n == maxRows {
			return fmt.Errorf("table %s has more than %d rows", table, maxRows)
		}
		r := &row{table: table, number: n + 1, values: make(map[string]any, len(names))}
		if err := d.scan(rows, names, r); err != nil {
			return fmt.Errorf("read the table %s: %w", table, err)
		}
		if err := errors.Join(do(r), r.err); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the table %s: %w", table, err)
	}
	return nil
}

func (d *database) scan(rows *sql.Rows, names []string, into *row) error {
	values := make([]any, len(names))
	pointers := make([]any, len(names))
	for i := range values {
		pointers[i] = &values[i]
	}
	if err := rows.Scan(pointers...); err != nil {
		return err
	}
	for i, name := range names {
		switch v := values[i].(type) {
		case []byte:
			values[i] = string(v)
			d.read += int64(len(v))
		case string:
			d.read += int64(len(v))
		}
		if d.read > maxRead {
			return fmt.Errorf("the values have more than %d bytes", int64(maxRead))
		}
		into.values[name] = values[i]
	}
	return nil
}
