package corestore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"nodeagent/cmd/node-core/internal/corestore/pgsql"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/postgrestest"
)

// bareCopy stores only the usage rows, by COPY in one durable transaction.
func bareCopy(ctx context.Context, s *Store, nodeID int64, entries []wire.UsageEntry) error {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error {
		_, err := c.(*pgsql.Conn).PGX().CopyFrom(ctx, pgx.Identifier{"usage"},
			[]string{"node_id", "recorded_at", "user_id", "subscription_id", "node_protocol_id", "bytes_up", "bytes_down", "flagged"},
			pgx.CopyFromSlice(len(entries), func(i int) ([]any, error) {
				e := entries[i]
				return []any{nodeID, millis(e.RecordedAt), e.UserID, *e.SubscriptionID, e.NodeProtocolID, e.BytesUp, e.BytesDown, int64(0)}, nil
			}))
		return err
	})
}

// BenchmarkUsagePostgres measures AddUsage with 64 nodes that post batches of a thousand rows of
// 10,000 subscriptions, and beside it bareCopy with the same rows, writers and durability. The aim is
// half of bareCopy's speed. Meanwhile a node sends heartbeats and an operator edits subscriptions: the
// aim is that no one of them waits for over 100 ms. On a machine with few processors that wait
// has the turn of 64 busy writers in it.
func BenchmarkUsagePostgres(b *testing.B) {
	server := postgrestest.Start(b, "fsync=on", "shared_buffers=256MB", "max_wal_size=4GB")
	url := server.Database(b)
	store, err := OpenPostgres(b.Context(), Postgres{URL: url})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	const nodes, rows, subscriptions = 64, 1000, 10_000
	server.SQLIn(b, databaseOf(url), fmt.Sprintf(`INSERT INTO users (id, name, created_at) SELECT n, 'user '||n, 0 FROM generate_series(1, %[1]d) n;
		INSERT INTO subscriptions (id, user_id, uuid, created_at) SELECT n, n, gen_random_uuid(), 0 FROM generate_series(1, %[1]d) n; ANALYZE`, subscriptions))
	node, _, err := store.AddNode(b.Context(), "node", "", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	minute := time.Now().UTC().Truncate(time.Minute).Add(-24 * time.Hour)
	batch := func(node int) []wire.UsageEntry {
		entries := make([]wire.UsageEntry, rows)
		for i := range entries {
			id := int64((node*157+i*7)%subscriptions + 1)
			entries[i] = wire.UsageEntry{UserID: id, SubscriptionID: &id, NodeProtocolID: 1, BytesUp: 1000, BytesDown: 2000, RecordedAt: minute}
		}
		return entries
	}
	together := func(f func(node int, entries []wire.UsageEntry) error) time.Duration {
		var all sync.WaitGroup
		batches := make([][]wire.UsageEntry, nodes)
		for n := range batches {
			batches[n] = batch(n)
		}
		began := time.Now()
		for n := range nodes {
			all.Go(func() {
				if err := f(n, batches[n]); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		return time.Since(began)
	}
	var ours, bare time.Duration
	var heartbeats, edits []time.Duration
	n := 0
	for b.Loop() {
		n++
		minute = minute.Add(time.Minute)
		ctx, stop := context.WithCancel(b.Context())
		var others sync.WaitGroup
		others.Go(func() {
			heartbeats = append(heartbeats, timed(ctx, b, func() error {
				_, err := store.Heartbeat(b.Context(), node.ID, wire.HeartbeatRequest{}, Daemon{})
				return err
			})...)
		})
		enabled := false
		others.Go(func() {
			edits = append(edits, timed(ctx, b, func() error {
				enabled = !enabled
				_, _, err := store.EnableSubscription(b.Context(), "77", enabled)
				return err
			})...)
		})
		ours += together(func(node int, entries []wire.UsageEntry) error {
			_, err := store.AddUsage(b.Context(), int64(node+1), fmt.Sprint("key-", n), entries)
			return err
		})
		stop()
		others.Wait()
		bare += together(func(node int, entries []wire.UsageEntry) error {
			return bareCopy(b.Context(), store, int64(node+1001), entries)
		})
	}
	b.ReportMetric(float64(n*nodes*rows)/ours.Seconds(), "rows/s")
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "of-bare-copy")
	for what, took := range map[string][]time.Duration{"heartbeat": heartbeats, "edit": edits} {
		if slices.Sort(took); len(took) > 0 {
			b.ReportMetric(float64(took[len(took)-1-len(took)/100].Milliseconds()), what+"-p99-ms")
			b.ReportMetric(float64(took[len(took)-1].Milliseconds()), what+"-max-ms")
		}
	}
}

// timed calls f every 5 ms until ctx ends, and returns how long each call took.
func timed(ctx context.Context, b *testing.B, f func() error) (took []time.Duration) {
	for ctx.Err() == nil {
		began := time.Now()
		if err := f(); err != nil {
			b.Error(err)
		}
		took = append(took, time.Since(began))
		_ = sleep(ctx, 5*time.Millisecond)
	}
	return took
}
