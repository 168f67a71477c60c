package corestore

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// registered adds a node that has spoken, and of which something was heard three minutes ago.
func registered(t *testing.T, s *Store) Node {
	t.Helper()
	node, code, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "n", Host: "h", IP: "192.0.2.1"}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Heartbeat(t.Context(), node.ID, wire.HeartbeatRequest{}, Daemon{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.ExecContext(t.Context(), `UPDATE nodes SET last_seen_at = ?1, told_at = ?1`, millis(time.Now().Add(-3*time.Minute))); err != nil {
		t.Fatal(err)
	}
	return node
}

// An instance on PostgreSQL writes when nodes were heard of where an instance of the version before reads it. That
// one would take them for offline otherwise.
func TestVersionBeforeReadsHeartbeats(t *testing.T) {
	s, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	node := registered(t, s)
	if _, quiet, err := s.QuietBeat(t.Context(), node.ID, wire.HeartbeatRequest{}, Daemon{}); err != nil || !quiet {
		t.Fatalf("the heartbeat is quiet: %t, %v", quiet, err)
	}
	if err := s.storeSeen(t.Context()); err != nil {
		t.Fatal(err)
	}
	var away int
	if err := s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM nodes WHERE last_seen_at < ?`, millis(time.Now().Add(-OfflineAfter))).Scan(&away); err != nil || away != 0 {
		t.Errorf("%d nodes are away, %v", away, err)
	}
}

// A database of SQLite that was closed has all in the rows of nodes, where the version before reads it.
func TestVersionBeforeReadsAClosedDatabase(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	node := registered(t, s)
	first, err := s.Revision(t.Context(), node.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Applied(t.Context(), node.ID, "", first); err != nil {
		t.Fatal(err)
	}
	user, err := s.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.AddSubscription(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	revision, err := s.Revision(t.Context(), node.ID)
	if err != nil || revision <= first {
		t.Fatalf("the revision is %d after %d, %v", revision, first, err)
	}
	heard := time.Now().Add(time.Second)
	s.noteSeen(node.ID, heard)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := open(filepath.Join(dir, fileName), "deferred")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got, seen int64
	var status string
	if err := db.QueryRowContext(t.Context(), `SELECT revision, last_seen_at, sync_status FROM nodes`).Scan(&got, &seen, &status); err != nil {
		t.Fatal(err)
	}
	if got != revision || seen != millis(heard) || status != "pending" {
		t.Errorf("the row has revision %d, last_seen_at %d and sync_status %s, want %d, %d and pending", got, seen, status, revision, millis(heard))
	}
}

// A database that a later version has migrated is refused, and the message says so.
func TestDatabaseOfALaterVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "later version") || !strings.Contains(err.Error(), "99999") {
		t.Errorf("got %v", err)
		if err == nil {
			_ = s.Close()
		}
	}
}

// A clock that was ahead for a while keeps no node online, and no event back.
func TestClockThatWasAhead(t *testing.T) {
	for name, set := range map[string]func(t *testing.T, s *Store, node int64, at time.Time){
		"for a quiet heartbeat": func(t *testing.T, s *Store, node int64, at time.Time) {
			t.Helper()
			s.noteSeen(node, at)
			if err := s.storeSeen(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"for another heartbeat and an event": func(t *testing.T, s *Store, _ int64, at time.Time) {
			t.Helper()
			if _, err := s.write.ExecContext(t.Context(), `UPDATE nodes SET last_seen_at = ?1, told_at = ?1`, millis(at)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			node := registered(t, s)
			now := time.Now()
			seen := func() time.Time {
				t.Helper()
				n, err := s.NodeByID(t.Context(), node.ID)
				if err != nil {
					t.Fatal(err)
				}
				return *n.LastSeenAt
			}
			set(t, s, node.ID, now.AddDate(1, 0, 0))
			if !seen().After(now.AddDate(0, 11, 0)) {
				t.Fatal("the time is not stored")
			}
			if err := s.lookAtNodes(t.Context(), now, time.Time{}); err != nil || seen().After(now) {
				t.Errorf("the node was heard of at %s, which is ahead; %v", seen(), err)
			}
			if err := s.lookAtNodes(t.Context(), now.Add(2*OfflineAfter), time.Time{}); err != nil {
				t.Fatal(err)
			}
			var told string
			if err := s.read.QueryRowContext(t.Context(), `SELECT told FROM nodes`).Scan(&told); err != nil || told != "offline" {
				t.Errorf("the node is told as %s, %v", told, err)
			}
		})
	}
	t.Run("and right before the next heartbeat", func(t *testing.T) {
		s := openStore(t)
		node := registered(t, s)
		now := time.Now()
		for _, at := range []time.Time{now.AddDate(1, 0, 0), now} {
			s.noteSeen(node.ID, at)
			if err := s.storeSeen(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := s.NodeByID(t.Context(), node.ID); err != nil || n.LastSeenAt.After(now) {
			t.Errorf("the node was heard of at %s, %v", n.LastSeenAt, err)
		}
	})
}
