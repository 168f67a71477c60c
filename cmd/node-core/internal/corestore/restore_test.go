package corestore

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// oldDatabase has the database of an earlier version, whose ids and revisions are small.
const oldDatabase = "../../../../internal/e2e/testdata/upgrade/9661a72/node-core/core.db.gz"

// unpackOld writes that database to a file.
func unpackOld(t *testing.T, to string) {
	t.Helper()
	packed, err := os.Open(oldDatabase)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	plain, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A copy of an earlier version's database is restored twice, with as many edits after each as
// were lost. No id and no revision is given out twice.
func TestRestoreOfAnEarlierVersion(t *testing.T) {
	dir, copied := t.TempDir(), filepath.Join(t.TempDir(), "old.db")
	unpackOld(t, copied)
	given := map[int64]bool{}
	revision := int64(0)
	for round := range 3 {
		restored, err := Restore(t.Context(), copied, dir, time.Now().Add(time.Duration(round)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(round) + 2; restored.Epoch != want { // a copy of that version has no epoch yet, which is 1
			t.Errorf("epoch %d, want %d", restored.Epoch, want)
		}
		s, err := Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			user, err := s.AddUser(t.Context(), "added")
			if err != nil {
				t.Fatal(err)
			}
			sub, nodes, err := s.AddSubscription(t.Context(), user.ID)
			if err != nil {
				t.Fatal(err)
			}
			now, err := s.Revision(t.Context(), nodes[0])
			if err != nil || now <= revision {
				t.Errorf("revision %d after %d (%v)", now, revision, err)
			}
			revision = now
			for _, id := range []int64{user.ID, sub.ID} {
				if id < 1_700_000_000_000 {
					t.Errorf("id %d carries no time", id)
				}
			}
			if given[user.ID] || given[-sub.ID] {
				t.Errorf("user %d or subscription %d was given out before", user.ID, sub.ID)
			}
			given[user.ID], given[-sub.ID] = true, true
			if _, err := s.RemoveUser(t.Context(), user.ID); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Check(t.Context(), dir); err != nil {
			t.Error(err)
		}
	}
}

// A restore that fails leaves the folder as it was.
func TestAFailedRestoreChangesNothing(t *testing.T) {
	dir := t.TempDir()
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
	before := listed(t, dir)
	good := filepath.Join(t.TempDir(), "good.db")
	unpackOld(t, good)
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"cut short":          raw[:len(raw)/2],
		"a page overwritten": append(append(append([]byte{}, raw[:8192]...), make([]byte, 8192)...), raw[16384:]...),
		"empty":              nil,
		"another database":   []byte("SQLite format 3\x00" + strings.Repeat("x", 4096)),
	} {
		bad := filepath.Join(t.TempDir(), "bad.db")
		if err := os.WriteFile(bad, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), bad, dir, time.Now()); err == nil {
			t.Errorf("%s: it was restored", name)
		}
		if after := listed(t, dir); after != before {
			t.Errorf("%s: the folder has %s, and had %s", name, after, before)
		}
	}
	if s, err = Open(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if users, _, err := s.ListUsers(t.Context(), UserFilter{}, List{}); err != nil || len(users) != 1 {
		t.Errorf("users %v, %v", users, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A restore keeps the files that are there: a sound database under one name, a damaged one with
// its log, and the certificate.
func TestRestoreKeepsWhatWasThere(t *testing.T) {
	for name, damage := range map[string]bool{"a sound database": false, "a damaged one": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, f := range backupFiles {
				if err := os.WriteFile(filepath.Join(dir, f.name), []byte("old "+f.name), f.mode); err != nil {
					t.Fatal(err)
				}
			}
			backup := filepath.Join(t.TempDir(), "backup.db")
			if err := Backup(t.Context(), dir, backup); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "tls.key"), []byte("newer"), 0o600); err != nil {
				t.Fatal(err)
			}
			if damage {
				if err := os.WriteFile(filepath.Join(dir, fileName), []byte("damaged"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, err := Restore(t.Context(), backup, dir, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(r.Kept); err != nil {
				t.Errorf("the database from before: %v", err)
			}
			kept, err := filepath.Glob(filepath.Join(dir, "tls.key.before-restore-*"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept keys: %v, %v", kept, err)
			}
			if raw, err := os.ReadFile(kept[0]); err != nil || string(raw) != "newer" {
				t.Errorf("the kept key is %q, %v", raw, err)
			}
			if raw, err := os.ReadFile(filepath.Join(dir, "tls.key")); err != nil || string(raw) != "old tls.key" {
				t.Errorf("the key is %q, %v", raw, err)
			}
			if _, err := Check(t.Context(), dir); err != nil {
				t.Error(err)
			}
		})
	}
}

// A backup that fails leaves no file, and never replaces one.
func TestAFailedBackup(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t)
	if _, err := s.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "backup.db")
	if err := Backup(t.Context(), filepath.Join(dir, "nothing"), file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no database: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Backup(t.Context(), dir, file); err == nil {
		t.Error("a damaged database was backed up")
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a backup is left: %v", err)
	}
}

func listed(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
