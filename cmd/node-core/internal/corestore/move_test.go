package corestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A database of an earlier version, with rows of every table beside, goes to PostgreSQL and back. Each
// row is there, no id is given out again, and the certificate goes with it.
func TestMoveThereAndBack(t *testing.T) {
	server := onPostgres(t)
	dir, back := t.TempDir(), filepath.Join(t.TempDir(), "back")
	unpackOld(t, filepath.Join(dir, fileName))
	for _, f := range backupFiles {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte("content of "+f.name), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	user, err := s.AddUser(t.Context(), "ünïcode 🦆")
	must(err)
	sub, _, err := s.AddSubscription(t.Context(), user.ID)
	must(err)
	var entries []wire.UsageEntry
	for n := range 300 { // over half a year, and one far away
		entries = append(entries, wire.UsageEntry{UserID: user.ID, SubscriptionID: &sub.ID, NodeProtocolID: 1, BytesUp: int64(n), BytesDown: 1, RecordedAt: time.Now().UTC().Truncate(time.Hour).Add(-time.Duration(n*15) * time.Hour)})
	}
	entries = append(entries, wire.UsageEntry{UserID: user.ID, SubscriptionID: &sub.ID, NodeProtocolID: 1, BytesUp: maxSum / 2, RecordedAt: time.UnixMilli(0)})
	_, err = s.AddUsage(t.Context(), 1, "key", entries)
	must(err)
	must(s.AddSessionEvents(t.Context(), 1, "", []wire.SessionEvent{{UserID: user.ID, EventType: wire.Online, OccurredAt: time.Now()}}))
	removed, err := s.AddUser(t.Context(), "removed")
	must(err)
	_, err = s.RemoveUser(t.Context(), removed.ID)
	must(err)
	identity := s.Identity()
	_, err = s.write.ExecContext(t.Context(), `UPDATE sqlite_sequence SET seq = seq + 5000000 WHERE name IN ('users', 'session_events')`) // as if later ones had been there
	must(err)
	must(s.Close())
	// A Core that was killed had raised the revision of all nodes by one row.
	killed, err := open(filepath.Join(dir, fileName), "immediate")
	must(err)
	var raised int64
	must(killed.QueryRowContext(t.Context(), `UPDATE all_nodes SET revision = 1000 + (SELECT max(revision) FROM nodes) RETURNING revision`).Scan(&raised))
	must(killed.Close())

	url := server.Database(t)
	there := Place{Postgres: Postgres{URL: url}}
	seen := map[string]int64{}
	moved, err := Move(t.Context(), Place{Dir: dir}, there, func(table string, rows int64) { seen[table] = rows })
	must(err)
	if len(moved) < 14 || seen["usage"] < 300 {
		t.Errorf("moved %v, with the progress %v", moved, seen)
	}
	_, err = CheckPostgres(t.Context(), there.Postgres)
	must(err)
	again, err := Move(t.Context(), there, Place{Dir: back}, nil)
	must(err)
	if fmt.Sprint(again) != fmt.Sprint(moved) && len(again) != len(moved) {
		t.Errorf("moved back %v, want %v", again, moved)
	}
	if _, err := Check(t.Context(), back); err != nil {
		t.Error(err)
	}
	for _, f := range backupFiles {
		if raw, err := os.ReadFile(filepath.Join(back, f.name)); err != nil || string(raw) != "content of "+f.name {
			t.Errorf("%s is %q, %v", f.name, raw, err)
		}
	}
	for name, open := range map[string]func() (*Store, error){
		"PostgreSQL": func() (*Store, error) { return OpenPostgres(t.Context(), there.Postgres) },
		"SQLite":     func() (*Store, error) { return Open(t.Context(), back) },
	} {
		s, err := open()
		must(err)
		var least int64
		must(s.read.QueryRowContext(t.Context(), `SELECT min(revision) FROM nodes`).Scan(&least))
		if least < raised {
			t.Errorf("%s has a node with revision %d, of which an instance of the version before says no more; want %d", name, least, raised)
		}
		if s.Identity() != identity {
			t.Errorf("%s is Core %+v, want %+v", name, s.Identity(), identity)
		}
		got, err := s.User(t.Context(), "ünïcode 🦆")
		must(err)
		next, err := s.AddUser(t.Context(), "next")
		must(err)
		if got.ID != user.ID || next.ID <= removed.ID+4_000_000 {
			t.Errorf("%s has given out the ids %d and %d, after %d and %d", name, got.ID, next.ID, user.ID, removed.ID)
		}
		must(s.AddSessionEvents(t.Context(), 1, "", []wire.SessionEvent{{UserID: 1, EventType: wire.Online, OccurredAt: time.Now()}}))
		var last int64
		must(s.read.QueryRowContext(t.Context(), `SELECT max(id) FROM session_events`).Scan(&last))
		if last < 5_000_000 {
			t.Errorf("%s has given out the id %d for an event", name, last)
		}
		// The old rows lie in partitions, and merging keeps the sums.
		if err := s.Upkeep(t.Context(), time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(s.Close())
	}
	_, err = CheckPostgres(t.Context(), there.Postgres)
	must(err)
}

// A target that has something, and a database that a Core uses, are refused and stay as they are.
func TestMoveRefuses(t *testing.T) {
	server := onPostgres(t)
	full, dir := t.TempDir(), t.TempDir()
	url := server.Database(t)
	for _, d := range []string{full, dir} {
		s, err := Open(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddUser(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Move(t.Context(), Place{Dir: dir}, Place{Dir: full}, nil); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("into a folder with a database: %v", err)
	}
	if _, err := Move(t.Context(), Place{Dir: t.TempDir()}, Place{Dir: filepath.Join(t.TempDir(), "new")}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no database: %v", err)
	}
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Move(t.Context(), Place{Dir: dir}, Place{Postgres: Postgres{URL: url}}, nil); err == nil || !strings.Contains(err.Error(), "another node-core") {
		t.Errorf("of a folder in use: %v", err)
	}
	unlock()
	core, err := OpenPostgres(t.Context(), Postgres{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Move(t.Context(), Place{Dir: dir}, Place{Postgres: Postgres{URL: url}}, nil); err == nil || !strings.Contains(err.Error(), "stop all instances") {
		t.Errorf("to a PostgreSQL in use: %v", err)
	}
	if _, err := core.AddUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	if err := core.Close(); err != nil {
		t.Fatal(err)
	}
	// The server ends a connection shortly after its client has closed it.
	for deadline := time.Now().Add(time.Minute); ; {
		_, err = Move(t.Context(), Place{Dir: dir}, Place{Postgres: Postgres{URL: url}}, nil)
		if errors.Is(err, ErrNotEmpty) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("to a PostgreSQL with a user: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	core, err = OpenPostgres(t.Context(), Postgres{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	if users, err := core.Users(t.Context()); err != nil || len(users) != 1 || users[0].Name != "bob" {
		t.Errorf("the target has %+v, %v", users, err)
	}
}
