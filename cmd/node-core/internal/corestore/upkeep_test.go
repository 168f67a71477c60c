package corestore

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"nodeagent/coreclient/wire"
)

// Old usage is merged into hours: the sums of each user and inbound stay, and young rows stay
// as they are. A second run changes nothing; a row that comes late is merged too.
func TestUpkeepKeepsTheSums(t *testing.T) {
	s := openStore(t)
	now := time.Now().UTC()
	old, young := now.Add(-60*24*time.Hour).Truncate(time.Hour), now.Add(-24*time.Hour).Truncate(time.Hour)
	random := rand.New(rand.NewPCG(1, 2))
	add := func(at time.Time) {
		t.Helper()
		var entries []wire.UsageEntry
		for user := range int64(3) {
			entries = append(entries, wire.UsageEntry{UserID: user + 1, NodeProtocolID: random.Int64N(2) + 1, BytesUp: random.Int64N(1000), BytesDown: random.Int64N(1000), RecordedAt: at})
		}
		if _, err := s.AddUsage(t.Context(), 1, "", entries); err != nil {
			t.Fatal(err)
		}
	}
	for minute := range 150 {
		add(old.Add(time.Duration(minute) * time.Minute))
		add(young.Add(time.Duration(minute) * time.Minute))
	}
	type owner struct{ user, protocol int64 }
	look := func() (sums map[owner][2]int64, oldRows, youngRows int) {
		t.Helper()
		rows, err := s.Usage(t.Context(), 10_000)
		if err != nil {
			t.Fatal(err)
		}
		sums = map[owner][2]int64{}
		for _, r := range rows {
			sum := sums[owner{r.UserID, r.NodeProtocolID}]
			sums[owner{r.UserID, r.NodeProtocolID}] = [2]int64{sum[0] + r.BytesUp, sum[1] + r.BytesDown}
			if r.RecordedAt.Before(young) {
				oldRows++
			} else {
				youngRows++
			}
		}
		return sums, oldRows, youngRows
	}
	want, _, young0 := look()
	for range 2 {
		if err := s.Upkeep(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		got, oldRows, youngRows := look()
		for who, sum := range want {
			if got[who] != sum {
				t.Errorf("%+v has %v, want %v", who, got[who], sum)
			}
		}
		if oldRows > 3*6 || youngRows != young0 { // three hours of six pairs
			t.Errorf("%d old rows and %d young ones, want at most 18 and %d", oldRows, youngRows, young0)
		}
		add(old.Add(7 * time.Minute))
		want, _, young0 = look()
	}
}

// Old events are deleted, young ones stay.
func TestUpkeepForgets(t *testing.T) {
	s := openStore(t)
	now := time.Now().UTC()
	for _, at := range []time.Time{now.Add(-100 * 24 * time.Hour), now} {
		if err := s.AddSessionEvents(t.Context(), 1, "", []wire.SessionEvent{{UserID: 1, Protocol: "vless", EventType: wire.Online, OccurredAt: at}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Upkeep(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if events, err := s.Events(t.Context(), 10); err != nil || len(events) != 1 {
		t.Errorf("%d events are left, want the young one (%v)", len(events), err)
	}
}

// Keys of old batches are deleted in steps, between which the nodes can write, and young
// keys stay.
func TestUpkeepDeletesKeysInSteps(t *testing.T) {
	s := openSQLite(t)
	now := time.Now()
	if _, err := s.write.ExecContext(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO idempotency_keys (node_id, key, route, created_at) SELECT 1, i, '/node/usage', ? FROM n`,
		2*rowsPerStep+1, millis(now.Add(-idempotencyKeyLife-time.Hour))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddUsage(t.Context(), 1, "young", nil); err != nil {
		t.Fatal(err)
	}
	largest := largestDelete(t, s)
	if err := s.Upkeep(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if n := largest.Load(); n != rowsPerStep {
		t.Errorf("up to %d keys were deleted in one transaction, want %d", n, rowsPerStep)
	}
	var keys int
	if err := s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM idempotency_keys WHERE key = 'young'`).Scan(&keys); err != nil || keys != 1 {
		t.Errorf("%d young keys are left (%v)", keys, err)
	}
	if err := s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM idempotency_keys`).Scan(&keys); err != nil || keys != 1 {
		t.Errorf("%d keys are left, want the young one (%v)", keys, err)
	}
}

// largestDelete returns how many rows the store deletes at most in one transaction from now on.
func largestDelete(t *testing.T, s *Store) *atomic.Int64 {
	t.Helper()
	conn, err := s.write.Conn(t.Context()) // the only one
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var largest, current atomic.Int64
	if err := conn.Raw(func(c any) error {
		hooks := c.(sqlite.HookRegisterer)
		hooks.RegisterPreUpdateHook(func(change sqlite.SQLitePreUpdateData) {
			if change.Op == sqlite3.SQLITE_DELETE {
				largest.Store(max(largest.Load(), current.Add(1)))
			}
		})
		hooks.RegisterCommitHook(func() int32 {
			current.Store(0)
			return 0
		})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return &largest
}

// A node that sends many small batches keeps no more keys than others: the oldest go, and a batch
// that comes twice soon counts once.
func TestKeysOfANodeAreBounded(t *testing.T) {
	s := openStore(t)
	const most = 10
	for node, keys := range map[int64]int{1: 3 * most, 2: most} {
		for key := range keys {
			if _, err := s.write.ExecContext(t.Context(), `INSERT INTO idempotency_keys (node_id, key, route, created_at) VALUES (?, ?, '/node/usage', ?)`, node, fmt.Sprint(key), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.boundKeys(t.Context(), most); err != nil {
		t.Fatal(err)
	}
	for node, oldest := range map[int64]int64{1: 2 * most, 2: 0} {
		var keys, first int64
		if err := s.read.QueryRowContext(t.Context(), `SELECT count(*), min(created_at) FROM idempotency_keys WHERE node_id = ?`, node).Scan(&keys, &first); err != nil {
			t.Fatal(err)
		}
		if keys != most || first != oldest {
			t.Errorf("node %d has %d keys, the first of %d; want %d and %d", node, keys, first, most, oldest)
		}
	}
}
