package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/postgrestest"
)

// A Core goes from SQLite to PostgreSQL and back by the commands, and a backup of PostgreSQL is
// restored to SQLite and to another PostgreSQL. check finds the same everywhere.
func TestDatabasesAreMoved(t *testing.T) {
	server := postgrestest.Start(t)
	run := func(args ...string) string {
		t.Helper()
		var out, err bytes.Buffer
		cmd := newRootCmd(streams{out: &out, err: &err})
		cmd.SetArgs(args)
		if failure := cmd.ExecuteContext(t.Context()); failure != nil {
			t.Fatalf("node-core %s: %v", strings.Join(args, " "), failure)
		}
		return out.String()
	}
	folder := t.TempDir()
	first, back, restored := filepath.Join(folder, "first"), filepath.Join(folder, "back"), filepath.Join(folder, "restored")
	s, err := corestore.Open(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	user, err := s.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := s.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddUsage(t.Context(), 1, "", []wire.UsageEntry{{UserID: user.ID, SubscriptionID: &sub.ID, NodeProtocolID: 1, BytesUp: 5, BytesDown: 7, RecordedAt: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	url, other, backup := filepath.Join(folder, "url"), filepath.Join(folder, "other"), filepath.Join(folder, "backup.db")
	for _, file := range []string{url, other} {
		if err := os.WriteFile(file, []byte(server.Database(t)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := run("migrate-db", "--from", "sqlite:"+first, "--to", "@"+url); !strings.Contains(out, "copied and compared") {
		t.Errorf("it printed %q", out)
	}
	run("migrate-db", "--from", "@"+url, "--to", "sqlite:"+back, "--output", "json")
	run("backup", backup, "--database-file", url)
	run("restore", backup, "--data-dir", restored, "--yes")
	run("restore", backup, "--database-file", other)
	var want any
	for _, args := range [][]string{{"--data-dir", first}, {"--database-file", url}, {"--data-dir", back}, {"--data-dir", restored}, {"--database-file", other}} {
		var have any
		if err := json.Unmarshal([]byte(run(append([]string{"check", "--output", "json"}, args...)...)), &have); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = have
		}
		if !reflect.DeepEqual(have, want) {
			t.Errorf("%v has %v, want %v", args, have, want)
		}
	}
	if left, err := filepath.Glob(filepath.Join(folder, ".node-core-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
