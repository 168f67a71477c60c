package corestore

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/coreclient/wire"
)

// manySubscriptions adds n subscriptions, each of a user of its own, and returns their ids in order.
func manySubscriptions(b *testing.B, s *Store, n int, sub Subscription) (ids, users []int64) {
	b.Helper()
	for start := 0; start < n; start += MaxBulk {
		add := make([]NewUser, min(MaxBulk, n-start))
		for i := range add {
			add[i] = NewUser{User: User{Name: fmt.Sprint("user-", sub.Note, start+i)}, Subscriptions: []Subscription{sub}}
		}
		if _, err := s.BulkUsers(b.Context(), add, nil); err != nil {
			b.Fatal(err)
		}
		for _, u := range add {
			ids, users = append(ids, u.Subscriptions[0].ID), append(users, u.ID)
		}
	}
	return ids, users
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkUsageWithLimits stores batches of a thousand rows by turns for subscriptions with a limit
// and a period, and for subscriptions without, in one database. cost-% is how much more CPU time
// the first take. The aim is under 10 %.
func BenchmarkUsageWithLimits(b *testing.B) {
	store, err := Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	const rows = 1000
	var spent [2]time.Duration
	var ids, users [2][]int64
	ids[0], users[0] = manySubscriptions(b, store, rows, Subscription{Note: "free"})
	ids[1], users[1] = manySubscriptions(b, store, rows, Subscription{Note: "limited", Terms: Terms{LimitBytes: 1 << 50, Period: "month"}})
	minute := time.Now().Add(-time.Hour).Truncate(time.Minute)
	n := 0
	for b.Loop() {
		for kind := range 2 {
			n++
			entries := make([]wire.UsageEntry, rows)
			for i := range entries {
				entries[i] = wire.UsageEntry{UserID: users[kind][i], SubscriptionID: &ids[kind][i], NodeProtocolID: 1, BytesUp: 1000, BytesDown: 2000, RecordedAt: minute}
			}
			before := cpu(b)
			if _, err := store.AddUsage(b.Context(), int64(n), fmt.Sprint("key-", n), entries); err != nil {
				b.Fatal(err)
			}
			spent[kind] += cpu(b) - before
		}
	}
	b.ReportMetric(100*(spent[1].Seconds()/spent[0].Seconds()-1), "cost-%")
	b.ReportMetric(float64(n*rows/2)/spent[1].Seconds(), "rows/cpu-s")
}

// BenchmarkManyLimits has a hundred thousand subscriptions on ten nodes, of which a thousand reach
// their limits in batches that come one after the other. It tells how long after the row the last of
// them was told to its nodes, and how many documents a node got in a second. The aims are under
// two seconds, and one.
func BenchmarkManyLimits(b *testing.B) {
	store, err := Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	const subs, nodes, crossing, batches = 100_000, 10, 1000, 50
	for i := range nodes {
		if _, _, err := store.AddNode(b.Context(), fmt.Sprint("node-", i), "", time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	ids, users := manySubscriptions(b, store, subs, Subscription{Terms: Terms{LimitBytes: 1 << 40, Period: "month"}})
	var mu sync.Mutex
	var told []time.Time // when the nodes got another revision
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		store.Enforce(ctx, func(changed ...int64) {
			if len(changed) > 0 {
				mu.Lock()
				told = append(told, time.Now())
				mu.Unlock()
			}
		}, func(err error) { b.Error(err) })
	}()
	var worst time.Duration
	next := 0
	for b.Loop() {
		var sent []time.Time
		began := time.Now()
		mu.Lock()
		told = nil
		mu.Unlock()
		for batch := range batches {
			entries := make([]wire.UsageEntry, 0, 1000)
			for i := range 1000 {
				bytes := int64(1000)
				if i < crossing/batches {
					bytes = 1 << 41
				}
				sub := (next + i) % subs
				entries = append(entries, wire.UsageEntry{UserID: users[sub], SubscriptionID: &ids[sub], NodeProtocolID: 1, BytesDown: bytes, RecordedAt: time.Now().Truncate(time.Minute)})
			}
			next += 1000
			if _, err := store.AddUsage(b.Context(), 1, fmt.Sprint("key-", next, "-", batch), entries); err != nil {
				b.Fatal(err)
			}
			sent = append(sent, time.Now())
		}
		for {
			mu.Lock()
			last := time.Time{}
			if len(told) > 0 {
				last = told[len(told)-1]
			}
			mu.Unlock()
			if last.After(sent[len(sent)-1]) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		mu.Lock()
		at := 0
		for _, row := range sent {
			for told[at].Before(row) {
				at++
			}
			worst = max(worst, told[at].Sub(row))
		}
		b.ReportMetric(float64(len(told))/max(1, time.Since(began).Seconds()), "documents/node/s")
		mu.Unlock()
	}
	b.ReportMetric(worst.Seconds()*1000, "ms-to-revision-max")
	cancel()
	<-ended
}
