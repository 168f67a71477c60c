package corestore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// Batches of many nodes that name the same subscriptions, and repeat keys and rows, come at the same time
// as edits, heartbeats and reports. Each byte counts once.
func TestNodesPostAtTheSameTime(t *testing.T) { postTogether(t, openStore(t)) }

func postTogether(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	var subs []Subscription
	for n := range 5 {
		user, err := s.AddUser(ctx, fmt.Sprint("user ", n))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			sub, _, err := s.AddSubscription(ctx, user.ID)
			if err != nil {
				t.Fatal(err)
			}
			subs = append(subs, sub)
		}
	}
	const nodes, batches, rows = 6, 8, 40
	minute := time.Now().UTC().Truncate(time.Minute)
	var mu sync.Mutex
	sums := map[int64]int64{}
	var all sync.WaitGroup
	for n := range nodes {
		node, _, err := s.AddNode(ctx, fmt.Sprint("node ", n), "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(uint64(n), 1))
		all.Go(func() {
			for b := range batches {
				var entries []wire.UsageEntry
				mu.Lock()
				for range rows {
					sub := subs[random.IntN(len(subs))]
					entries = append(entries, wire.UsageEntry{UserID: sub.UserID, SubscriptionID: &sub.ID, NodeProtocolID: 1, BytesUp: random.Int64N(1000), RecordedAt: minute.Add(-time.Duration(random.IntN(3)) * time.Minute)})
					sums[sub.ID] += entries[len(entries)-1].BytesUp
				}
				mu.Unlock()
				var twice sync.WaitGroup
				for range 2 { // the answer to the first was lost
					twice.Go(func() {
						if _, err := s.AddUsage(context.Background(), node.ID, fmt.Sprint("batch ", b), entries); err != nil {
							t.Error(err)
						}
					})
				}
				twice.Wait()
				revision, err := s.Revision(context.Background(), node.ID)
				if err != nil {
					t.Error(err)
				}
				if _, err := s.Heartbeat(context.Background(), node.ID, wire.HeartbeatRequest{Revision: &revision}, Daemon{}); err != nil {
					t.Error(err)
				}
				if err := s.Applied(context.Background(), node.ID, "", revision); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for n := range 20 {
			if _, _, err := s.EnableSubscription(context.Background(), subs[n%len(subs)].UUID, n%4 < 2); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	have, err := s.Subscriptions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range have {
		if sub.BytesUp != sums[sub.ID] {
			t.Errorf("subscription %d has counted %d bytes, want %d", sub.ID, sub.BytesUp, sums[sub.ID])
		}
	}
	stored, err := s.Usage(ctx, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range stored {
		sums[*r.SubscriptionID] -= r.BytesUp
	}
	for id, left := range sums {
		if left != 0 {
			t.Errorf("the rows of subscription %d differ from what was posted by %d", id, left)
		}
	}
}
