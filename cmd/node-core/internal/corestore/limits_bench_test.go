package corestore

import (
	"fmt"
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
