package corestore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/namespace"
	"nodeagent/internal/postgrestest"
)

// openStore opens a new database: SQLite's, or PostgreSQL's in the tests that TestPostgres runs.
func openStore(t testing.TB) *Store {
	t.Helper()
	var s *Store
	var err error
	if server := postgrestest.Running(); server != nil {
		s, err = OpenPostgres(t.Context(), Postgres{URL: server.Database(t)})
	} else {
		s, err = Open(t.Context(), t.TempDir())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// openSQLite opens a new database of SQLite.
func openSQLite(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// On a full disk the advice is to make room, and not to put an old copy in the place of a
// database that is whole. With room the database has what it had.
func TestFullDisk(t *testing.T) {
	if !namespace.Inside(t, "true") {
		return
	}
	disk := t.TempDir()
	if err := unix.Mount("none", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH) //nolint:errcheck // the namespace ends
	dir, filler := filepath.Join(disk, "core"), filepath.Join(disk, "filler")
	fill := func() {
		t.Helper()
		file, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for err == nil {
			_, err = file.Write(make([]byte, 4096))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	wantAdvice := func(what string) {
		t.Helper()
		s, err := Open(t.Context(), dir)
		if err == nil {
			_ = s.Close()
			t.Fatalf("%s: it opened", what)
		}
		if !strings.Contains(err.Error(), "make room on it") || strings.Contains(err.Error(), "backup") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fill()
	wantAdvice("a new database")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fill()
	wantAdvice("a database with a user")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if users, _, err := s.ListUsers(t.Context(), UserFilter{}, List{}); err != nil || len(users) != 1 {
		t.Errorf("after that it has %d users, want one (%v)", len(users), err)
	}
}
