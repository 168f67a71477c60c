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

// Many users are disabled in one call, and the first of them has the last subscription. The call locks the
// subscriptions in the order of their ids, as a batch of usage does: while it waits for the first one, it
// holds no lock of the last one, for which a batch that has the first could wait.
func TestDisabledUsersAreLockedInOrder(t *testing.T) {
	s, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	users := make([]NewUser, rowsPerStatement+1)
	var edits []UserEdit
	for i := range users {
		users[i].Name = fmt.Sprint("user-", i)
		edits = append(edits, UserEdit{users[i].Name, func(u *User) error { u.Enabled = false; return nil }})
	}
	if _, err := s.BulkUsers(t.Context(), users, nil); err != nil {
		t.Fatal(err)
	}
	var subs [2]Subscription
	for i, user := range []NewUser{users[rowsPerStatement], users[0]} {
		if subs[i], _, err = s.AddSubscription(t.Context(), user.ID); err != nil {
			t.Fatal(err)
		}
	}
	batch, err := s.batches.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Rollback() //nolint:errcheck // it has changed nothing
	if _, err := batch.ExecContext(t.Context(), `SELECT id FROM subscriptions WHERE id = ? FOR UPDATE`, subs[0].ID); err != nil {
		t.Fatal(err)
	}
	edited := make(chan error, 1)
	go func() {
		_, err := s.BulkUsers(context.WithoutCancel(t.Context()), nil, edits)
		edited <- err
	}()
	for waiting := 0; waiting == 0; {
		select {
		case err := <-edited:
			t.Fatalf("the edit has not waited for the batch: %v", err)
		default:
		}
		if err := s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := batch.ExecContext(t.Context(), `SELECT id FROM subscriptions WHERE id = ? FOR UPDATE NOWAIT`, subs[1].ID); err != nil {
		t.Errorf("the edit waits for a subscription, and holds the lock of a later one: %v", err)
	}
	if err := batch.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-edited; err != nil {
		t.Error(err)
	}
	for _, sub := range subs {
		if got, err := s.Subscription(t.Context(), sub.UUID); err != nil || got.Status != Disabled {
			t.Errorf("subscription %d is %s (%v), want %s", sub.ID, got.Status, err, Disabled)
		}
	}
}
