package importer

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	_ "modernc.org/sqlite"
)

// copyOf copies a file into a folder of the test.
func copyOf(t testing.TB, from string) string {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), filepath.Base(from))
	if err := os.WriteFile(to, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// change runs statements on a database. It returns the connection, which the caller closes.
func change(t testing.TB, path string, statements ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return db
}

func readMarzban(ctx context.Context, path string) (Read, error) {
	return Marzban(ctx, path, "testdata/marzban/xray_config.json", options)
}

// A database that no panel has made like that is an error that says what is wrong, and stays as it is.
func TestHostileDatabases(t *testing.T) {
	for name, c := range map[string]struct {
		statements []string
		want       string
	}{
		"a view in the place of a table": {
			[]string{`ALTER TABLE users RENAME TO people`, `CREATE VIEW users AS SELECT * FROM people`}, "users is a view or a virtual table",
		},
		"a column that computes": {
			[]string{`ALTER TABLE users DROP COLUMN note`, `ALTER TABLE users RENAME COLUMN status TO old`, `ALTER TABLE users ADD COLUMN status TEXT AS (hex(zeroblob(1000)))`}, "no column status",
		},
		"a missing table":           {[]string{`DROP TABLE proxies`}, "proxies: there is no such table"},
		"a missing column":          {[]string{`ALTER TABLE users RENAME COLUMN used_traffic TO used`}, "half-migrated"},
		"text for a number":         {[]string{`UPDATE users SET used_traffic = 'many' WHERE id = 2`}, `used_traffic is "many", want a whole number`},
		"a number for a time":       {[]string{`UPDATE users SET created_at = 'yesterday'`}, `want a time`},
		"settings that are cut":     {[]string{`UPDATE proxies SET settings = '{"id": "000'`}, "read the settings"},
		"settings of another form":  {[]string{`UPDATE proxies SET settings = '{"id": {"a": 1}}'`}, "read the settings"},
		"controls in a wrong value": {[]string{`UPDATE users SET used_traffic = char(27) || '[31m'`}, `used_traffic is " [31m"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := copyOf(t, "testdata/marzban/db.sqlite3")
			if err := change(t, path, c.statements...).Close(); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := readMarzban(t.Context(), path); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the panel's file was changed")
			}
		})
	}
}

// The same for databases of 3x-ui: of another version, half-migrated, damaged by hand, and hostile.
func TestHostileThreeXUI(t *testing.T) {
	for name, c := range map[string]struct {
		statements []string
		want       string
	}{
		"a view in the place of a table": {[]string{`ALTER TABLE inbounds RENAME TO ins`, `CREATE VIEW inbounds AS SELECT * FROM ins`}, "inbounds is a view or a virtual table"},
		"a missing table":                {[]string{`DROP TABLE inbounds`}, "inbounds: there is no such table"},
		"a missing column":               {[]string{`ALTER TABLE inbounds RENAME COLUMN stream_settings TO stream`}, "half-migrated"},
		"text for a number":              {[]string{`UPDATE inbounds SET port = 'https' WHERE id = 1`}, `port is "https"`},
		"settings that are cut":          {[]string{`UPDATE inbounds SET settings = substr(settings, 1, 40) WHERE id = 1`}, "settings of inbound in-"},
		"settings of another form":       {[]string{`UPDATE inbounds SET settings = '[1, 2]' WHERE id = 1`}, "settings of inbound in-"},
		"a value that is nested deep":    {[]string{`UPDATE inbounds SET settings = replace(printf('%.20000c', 'x'), 'x', '[') WHERE id = 1`}, "settings of inbound in-"},
	} {
		t.Run(name, func(t *testing.T) {
			path := copyOf(t, "testdata/3x-ui/x-ui.db")
			if err := change(t, path, c.statements...).Close(); err != nil {
				t.Fatal(err)
			}
			if r, err := ThreeXUI(t.Context(), path, options); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %d users, %v, want %q", len(r.Import.Users), err, c.want)
			}
		})
	}
}

// Values that are only odd are taken within bounds.
func TestOddValues(t *testing.T) {
	path := copyOf(t, "testdata/marzban/db.sqlite3")
	db := change(t, path,
		`UPDATE users SET note = printf('%.*c', 3000000, 'x'), expire = 9223372036854775807, used_traffic = -5, data_limit = 1e300 WHERE id = 2`,
		`UPDATE users SET data_limit = 1e15, username = CAST(x'ff41' AS TEXT) WHERE id = 2`,
		`CREATE TRIGGER bite AFTER UPDATE ON users BEGIN DELETE FROM users; END`)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := readMarzban(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	user, sub := userNamed(t, r, "\uFFFDA")
	if len(*user.Note) > maxNote || sub.ExpiresAt != nil || sub.UsedDown != 0 || sub.LimitBytes != 1e15 || len(r.Import.Users) != 6 {
		t.Errorf("a note of %d bytes, %+v", len(*user.Note), sub)
	}
}

func TestFilesThatAreNoDatabase(t *testing.T) {
	dir := t.TempDir()
	whole, err := os.ReadFile("testdata/3x-ui/x-ui.db")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, raw []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	zeros := bytes.Clone(whole)
	clear(zeros[8192:65536])
	huge := write("huge", whole[:100])
	if err := os.Truncate(huge, maxFile+1); err != nil { // it has holes, and takes no room
		t.Fatal(err)
	}
	for want, path := range map[string]string{
		"want at most":          huge,
		"no database of SQLite": write("text", []byte("hello")),
		"it is no database":     write("empty", nil),
		"no regular file":       fifo,
		"is no regular file":    dir,
		"the file is damaged":   write("truncated", whole[:len(whole)/2]),
		"damaged, or was":       write("zeros", zeros),
		"no such file":          filepath.Join(dir, "none"),
	} {
		if _, err := ThreeXUI(t.Context(), path, options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", filepath.Base(path), err, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "node-core-import-*")); len(left) > 0 {
		t.Logf("copies are left, of this run or of one beside it: %v", left)
	}
}

// A panel that runs holds its database open: what it has committed to the write-ahead log is read, also
// while it holds a lock. A log that was not copied with the file is what is missing then.
func TestPanelThatRuns(t *testing.T) {
	path := copyOf(t, "testdata/marzban/db.sqlite3")
	db := change(t, path, `PRAGMA journal_mode = WAL`, `PRAGMA wal_autocheckpoint = 0`, `UPDATE users SET username = 'alice2' WHERE id = 1`, `BEGIN EXCLUSIVE`, `UPDATE users SET username = 'alice3' WHERE id = 1`)
	defer db.Close()
	r, err := readMarzban(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	userNamed(t, r, "alice2")
	if r, err = readMarzban(t.Context(), copyOf(t, path)); err != nil {
		t.Fatal(err)
	}
	userNamed(t, r, "alice")
}

// FuzzDatabase reads databases with bytes that are not the panel's. Reading ends, with an error or
// without, and what is read is what Core takes.
func FuzzDatabase(f *testing.F) {
	panels := []struct {
		file string
		read func(context.Context, string) (Read, error)
	}{
		{"testdata/marzban/db.sqlite3", readMarzban},
		{"testdata/3x-ui/x-ui.db", func(ctx context.Context, path string) (Read, error) { return ThreeXUI(ctx, path, options) }},
	}
	whole := make([][]byte, len(panels))
	for i, p := range panels {
		var err error
		if whole[i], err = os.ReadFile(p.file); err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), uint32(4096), []byte("\xff\xff\xff\xff"))
		f.Add(uint8(i), uint32(100), []byte{0x0d, 0, 0, 0, 0xff})
		f.Add(uint8(i), uint32(40000), []byte("CREATE VIEW users AS"))
	}
	// Values of the panel's in other words: these are read, other than most of what is damaged.
	for _, word := range [][2]string{{`"clients"`, `"clientz"`}, {`"id"`, `"ID"`}, {`vless`, `vmess`}, {`enable`, `enabl\x00`}, {`"port"`, `"p\xfft"`}} {
		at := bytes.Index(whole[1], []byte(word[0]))
		f.Add(uint8(1), uint32(max(at, 0)), []byte(word[1]))
	}
	path := filepath.Join(f.TempDir(), "db.sqlite3")
	f.Fuzz(func(t *testing.T, panel uint8, at uint32, with []byte) {
		i := int(panel) % len(panels)
		raw := bytes.Clone(whole[i])
		copy(raw[int(at)%len(raw):], with)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := panels[i].read(t.Context(), path); err == nil {
			wantUsers(t, r)
		}
	})
}

// wantUsers checks that the users of an import have names and origins that Core takes.
func wantUsers(t *testing.T, r Read) {
	t.Helper()
	for _, u := range r.Import.Users {
		if u.Name == "" || len(u.Name) > maxName || strings.ContainsAny(u.Name+u.Origin, "\x00\n\x1b") {
			t.Errorf("a user is named %q, of %q", u.Name, u.Origin)
		}
	}
}

// FuzzAnswers reads answers of APIs and Xray's configurations. What is read is what Core takes.
func FuzzAnswers(f *testing.F) {
	for _, path := range append([]string{"testdata/marzban/xray_config.json"}, remnawaveFiles...) {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"users": [{"username": 5, "expire": "1e9", "proxies": {"vless": {"id": null}}, "inbounds": {"vless": ["VLESS REALITY"]}}]} // end`))
	path := filepath.Join(f.TempDir(), "answer.json")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, read := range []func() (Read, error){
			func() (Read, error) { return Marzban(t.Context(), path, "testdata/marzban/xray_config.json", options) },
			func() (Read, error) { return Marzban(t.Context(), "testdata/marzban/db.sqlite3", path, options) },
			func() (Read, error) { return Remnawave(append([]string{path}, remnawaveFiles...), "", options) },
		} {
			r, err := read()
			if err != nil {
				continue
			}
			wantUsers(t, r)
		}
	})
}
