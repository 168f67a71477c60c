package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/postgrestest"
)

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// Backups come when they are due, also after a restart, and only the oldest of Core's own are deleted.
// One that fails leaves nothing, is told once, and is tried again sooner.
func TestScheduleOfBackups(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"node-core-20000101T000000Z.db", "node-core-mine.db", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var made []time.Time
		var told []string
		var fails error
		newOne := func() *backups {
			b, err := newBackups(backupFlags{dir: dir, every: 24 * time.Hour, keep: 2}, "", corestore.Postgres{}, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			b.make = func(_ context.Context, file string) error {
				made = append(made, time.Now())
				if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
					return err
				}
				return fails
			}
			b.tell = func(_ context.Context, reason string, _ time.Time) error {
				told = append(told, reason)
				return nil
			}
			return b
		}
		run := func(b *backups, d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			b.run(ctx)
		}
		start := time.Now().UTC().Truncate(time.Second) // 2000-01-01, in a bubble
		at := func(n int) string {
			return backupPrefix + start.Add(time.Duration(n)*24*time.Hour).Format(backupLayout) + ".db"
		}
		run(newOne(), 49*time.Hour) // the first is there, see above
		if want := []string{at(1), at(2), "node-core-mine.db", "other"}; !slices.Equal(names(t, dir), want) || len(made) != 2 {
			t.Errorf("there are %v of %d tries, want %v of 2", names(t, dir), len(made), want)
		}
		b := newOne() // a restart after an hour
		run(b, 22*time.Hour)
		if len(made) != 2 {
			t.Error("a restart makes a backup that is not due")
		}
		fails = errors.New("no room")
		b = newOne()
		run(b, 150*time.Minute)
		if last, failures := b.numbers(); failures != 2 || last.Format(backupLayout) != start.Add(48*time.Hour).Format(backupLayout) || len(made) != 4 || len(told) != 2 || told[0] != "no room" {
			t.Errorf("%d failures after %v, %d tries, told %q", failures, last, len(made), told)
		}
		if want := []string{at(1), at(2), "node-core-mine.db", "other"}; !slices.Equal(names(t, dir), want) {
			t.Errorf("after failures there are %v, want %v", names(t, dir), want)
		}
	})
}

// The rest of a backup that a crash has left is deleted, and a younger one is not.
func TestUnfinishedBackups(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, unfinishedPrefix+"old"), filepath.Join(dir, unfinishedPrefix+"young")
	for _, d := range []string{old, young} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ago := time.Now().Add(-2 * unfinishedLife)
	if err := os.Chtimes(old, ago, ago); err != nil {
		t.Fatal(err)
	}
	b := backups{backupFlags: backupFlags{dir: dir}}
	if err := b.clean(time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != 1 || got[0] != filepath.Base(young) {
		t.Errorf("%v are left", got)
	}
}

// A scheduled backup of either database can be restored, and a failure is one event.
func TestScheduledBackupsOfBothDatabases(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, dir string) (corestore.Postgres, *corestore.Store, error){
		"SQLite": func(t *testing.T, dir string) (p corestore.Postgres, s *corestore.Store, err error) {
			s, err = corestore.Open(t.Context(), dir)
			return p, s, err
		},
		"PostgreSQL": func(t *testing.T, _ string) (p corestore.Postgres, s *corestore.Store, err error) {
			p.URL = postgrestest.Start(t).Database(t)
			s, err = corestore.OpenPostgres(t.Context(), p)
			return p, s, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, to := t.TempDir(), filepath.Join(t.TempDir(), "backups")
			postgres, store, err := open(t, data)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			if _, err := store.AddUser(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			b, err := newBackups(backupFlags{dir: to, every: time.Hour, keep: 1}, data, postgres, store, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if err := b.once(t.Context(), time.Now()); err != nil {
				t.Fatal(err)
			}
			made := names(t, to)
			if len(made) != 1 || !backupName.MatchString(made[0]) {
				t.Fatalf("there are %v", made)
			}
			restored := t.TempDir()
			if _, err := corestore.Restore(t.Context(), filepath.Join(to, made[0]), restored, time.Now()); err != nil {
				t.Fatal(err)
			}
			again, err := corestore.Open(t.Context(), restored)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if _, err := again.User(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := b.tell(t.Context(), "no room", time.Now().Add(-time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			page, err := store.EventsAfter(t.Context(), corestore.EventQuery{Limit: 10})
			if err != nil || len(page.Events) != 1 || page.Events[0].Kind != coreapi.EventBackupFailed || string(page.Events[0].Data) != `{"error":"no room"}` {
				t.Errorf("the events are %+v, %v", page.Events, err)
			}
		})
	}
}
