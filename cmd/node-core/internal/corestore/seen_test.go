package corestore

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A heartbeat that says nothing new writes nothing by itself. The time is stored later, and at
// the end; what is new is stored at once.
func TestQuietHeartbeatsAreStoredTogether(t *testing.T) {
	s := openStore(t)
	node, code, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "fra1", Host: "h", IP: "192.0.2.1"}, ""); err != nil {
		t.Fatal(err)
	}
	revision := node.Revision
	if err := s.NoteDocument(t.Context(), node.ID, revision, `"e"`); err != nil {
		t.Fatal(err)
	}
	stored := func() int64 {
		t.Helper()
		var at int64
		if err := s.read.QueryRowContext(t.Context(), `SELECT coalesce(`+lastSeen+`, 0) FROM nodes WHERE id = ?`, node.ID).Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	beat := func(ip string, from Daemon) Beat {
		t.Helper()
		b, err := beatOnce(t.Context(), s, node.ID, wire.HeartbeatRequest{IP: ip, Revision: &revision}, from)
		if err != nil || b.Revision != revision || b.ETag != `"e"` {
			t.Fatalf("got %+v, %v", b, err)
		}
		return b
	}
	// backdate makes a stored time differ from the time of now.
	backdate := func() {
		t.Helper()
		for _, text := range []string{`UPDATE nodes SET last_seen_at = 1000 WHERE id = ?`, `UPDATE node_seen SET at = 1000 WHERE node_id = ?`} {
			if _, err := s.write.ExecContext(t.Context(), text, node.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	beat("192.0.2.1", Daemon{Boot: "a"})
	if stored() == 0 {
		t.Error("the first heartbeat is not stored at once")
	}
	backdate()
	beat("192.0.2.1", Daemon{Boot: "a"})
	if stored() != 1000 {
		t.Error("a quiet heartbeat is stored at once")
	}
	if err := s.storeSeen(t.Context()); err != nil || stored() == 1000 {
		t.Errorf("it is not stored later: %v", err)
	}
	for name, loud := range map[string]func(){
		"another address": func() { beat("192.0.2.2", Daemon{Boot: "a"}) },
		"another daemon":  func() { beat("192.0.2.2", Daemon{Boot: "b"}) },
	} {
		backdate()
		loud()
		if stored() == 1000 {
			t.Errorf("%s is not stored at once", name)
		}
	}
	// A node that was registered again has not spoken with its new key yet.
	beat("192.0.2.2", Daemon{Boot: "b"})
	beat("192.0.2.2", Daemon{Boot: "b"})
	if code, err = s.NewCode(t.Context(), node.ID, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "fra1", Host: "h", IP: "192.0.2.1"}, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.storeSeen(t.Context()); err != nil || stored() != 0 {
		t.Errorf("a heartbeat of before counts for the new key: %v", err)
	}
}

// beatOnce answers a heartbeat as package nodeapi does.
func beatOnce(ctx context.Context, s *Store, nodeID int64, r wire.HeartbeatRequest, from Daemon) (Beat, error) {
	if b, quiet, err := s.QuietBeat(ctx, nodeID, r, from); err != nil || quiet {
		return b, err
	}
	return s.Heartbeat(ctx, nodeID, r, from)
}

// Times that cannot be stored wait for another try, and keep others from nothing.
func TestTimesThatCouldNotBeStoredAreKept(t *testing.T) {
	s := openSQLite(t)
	var nodes []int64
	for _, name := range []string{"fra1", "fra2"} {
		n, _, err := s.AddNode(t.Context(), name, "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n.ID)
	}
	slices.Sort(nodes)
	bad, good := nodes[0], nodes[1]
	execute := func(text string, args ...any) {
		t.Helper()
		if _, err := s.write.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatal(err)
		}
	}
	execute(`UPDATE nodes SET last_seen_at = 1000`)
	execute(fmt.Sprintf(`CREATE TRIGGER broken BEFORE INSERT ON node_seen WHEN new.node_id = %d BEGIN SELECT RAISE(ABORT, 'broken'); END`, bad))
	at := time.UnixMilli(2000)
	for id := range int64(seenPerStep - 1) { // these fill the first part
		s.noteSeen(-1-id, at)
	}
	s.noteSeen(bad, at)
	s.noteSeen(good, at)
	stored := func(node int64) (ms int64) {
		t.Helper()
		if err := s.read.QueryRowContext(t.Context(), `SELECT `+lastSeen+` FROM nodes WHERE id = ?`, node).Scan(&ms); err != nil {
			t.Fatal(err)
		}
		return ms
	}
	if err := s.storeSeen(t.Context()); err == nil || stored(bad) != 1000 || stored(good) != 2000 {
		t.Errorf("got %v, stored %d and %d", err, stored(bad), stored(good))
	}
	s.quiet.mu.Lock()
	if s.quiet.timer == nil {
		t.Error("there is no other try")
	}
	s.quiet.mu.Unlock()
	execute(`DROP TRIGGER broken`)
	if err := s.storeSeen(t.Context()); err != nil || stored(bad) != 2000 {
		t.Errorf("got %v, stored %d", err, stored(bad))
	}
	s.noteSeen(bad, time.UnixMilli(4000))
	s.keepSeen([]int64{bad}, map[int64]time.Time{bad: time.UnixMilli(3000)})
	if err := s.storeSeen(t.Context()); err != nil || stored(bad) != 4000 {
		t.Errorf("got %v, stored %d in place of a later time", err, stored(bad))
	}
}
