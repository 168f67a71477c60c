package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Many subscriptions are added and changed in one transaction, and the nodes' revisions are raised
// once.
func TestBulkSubscriptions(t *testing.T) {
	m := newModel(t)
	ctx := t.Context()
	off, err := m.AddUser(ctx, "bob")
	m.must(err)
	_, _, err = m.EditUser(ctx, "bob", func(u *User) error { u.Enabled = false; return nil })
	m.must(err)
	before := m.revisions()
	add := []NewSubscription{{User: "alice"}, {User: fmt.Sprint(off.ID)}, {User: "alice", Subscription: Subscription{Note: "third", ExpiresAt: new(time.Now().Add(-time.Hour))}}}
	nodes, err := m.BulkSubscriptions(ctx, add, nil)
	if err != nil || len(nodes) != len(m.nodes) {
		t.Fatalf("raised %v, %v", nodes, err)
	}
	for i, node := range m.revisions() {
		if node <= before[i] {
			t.Errorf("node %d has the revision of before", i)
		}
	}
	for i, want := range []string{Active, Disabled, Expired} {
		sub, err := m.Subscription(ctx, add[i].UUID)
		if err != nil || sub.ID != add[i].ID || sub.Status != want || sub.MTProtoSecret != add[i].MTProtoSecret {
			t.Errorf("subscription %d: got %+v, %v, want the status %s", i, sub, err, want)
		}
	}
	disable := func(s *Subscription) error { s.Enabled = false; return nil }
	note := func(s *Subscription) error { s.Note = "edited"; return nil }
	first, second := fmt.Sprint(add[0].ID), add[1].UUID
	m.raises("an edit of notes", nil, func(ctx context.Context) ([]int64, error) {
		return m.BulkSubscriptions(ctx, nil, []SubscriptionEdit{{second, note}, {first, note}})
	})
	m.raises("an edit that cuts one off", []int{0, 1, 2}, func(ctx context.Context) ([]int64, error) {
		return m.BulkSubscriptions(ctx, nil, []SubscriptionEdit{{second, disable}, {first, disable}})
	})
	if sub, err := m.Subscription(ctx, first); err != nil || sub.Status != Disabled || sub.Note != "edited" {
		t.Errorf("got %+v, %v", sub, err)
	}
	for name, bad := range map[string]struct {
		add   []NewSubscription
		edits []SubscriptionEdit
		says  string
	}{
		"an unknown user":      {[]NewSubscription{{User: "alice"}, {User: "carol"}}, nil, "create[1]: user carol"},
		"a negative limit":     {[]NewSubscription{{User: "alice"}, {User: "alice", Subscription: Subscription{Terms: Terms{LimitBytes: -1}}}}, nil, "create[1]: the limit of bytes is -1"},
		"an unknown id":        {[]NewSubscription{{User: "alice"}}, []SubscriptionEdit{{first, note}, {"7777", note}}, "update[1]: subscription 7777"},
		"an unknown UUID":      {nil, []SubscriptionEdit{{"00000000-0000-4000-8000-000000000000", note}}, "update[0]: subscription with this UUID"},
		"an edit that refuses": {[]NewSubscription{{User: "alice"}}, []SubscriptionEdit{{first, func(*Subscription) error { return ErrInUse }}}, "update[0]: "},
	} {
		_, err := m.BulkSubscriptions(ctx, bad.add, bad.edits)
		var row RowError
		if !errors.As(err, &row) || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s: got %v, want %q", name, err, bad.says)
		}
		if subs, err := m.Subscriptions(ctx); err != nil || len(subs) != len(add) {
			t.Errorf("%s: there are %d subscriptions, %v", name, len(subs), err)
		}
	}
}

// A subscription that can't be is named by the row of its user.
func TestRowOfUser(t *testing.T) {
	m := newModel(t)
	add := []NewUser{{User: User{Name: "dora"}, Subscriptions: make([]Subscription, 3)}, {User: User{Name: "emil"}, Subscriptions: []Subscription{{}, {ExpiresAfterSeconds: -1}}}}
	_, err := m.BulkUsers(t.Context(), add, nil)
	if row, is := errors.AsType[RowError](err); !is || row.List != "create" || row.Row != 1 || !strings.Contains(err.Error(), "create[1]: a life of -1 seconds") {
		t.Errorf("got %v", err)
	}
}

// The pages of a list make up the whole list in its order, each row once, in both directions, also
// while rows are removed and added between two pages.
func TestPagesInOrder(t *testing.T) {
	m := newModel(t)
	ctx := t.Context()
	var add []NewSubscription
	for i := range 30 {
		if i%3 == 0 {
			_, err := m.AddUser(ctx, fmt.Sprintf("user-%02d", (i*7)%30))
			m.must(err)
		}
		sub := NewSubscription{User: fmt.Sprintf("user-%02d", (i/3*3*7)%30)}
		if i%4 != 0 { // several have the same end
			sub.ExpiresAt = new(time.UnixMilli(time.Now().UnixMilli()).UTC().Add(time.Duration(1+i%5) * time.Hour))
		}
		add = append(add, sub)
	}
	_, err := m.BulkSubscriptions(ctx, add, nil)
	m.must(err)
	ids := func(subs []Subscription) (ids []int64) {
		for _, s := range subs {
			ids = append(ids, s.ID)
		}
		return ids
	}
	rapid.Check(t, func(r *rapid.T) {
		order := rapid.SampledFrom([]string{"id", "-id", "user", "-user", "expires", "-expires"}).Draw(r, "order")
		list := List{Sort: order, Limit: rapid.IntRange(1, 40).Draw(r, "limit")}
		filter := SubscriptionFilter{Status: rapid.SampledFrom([]string{"", Active}).Draw(r, "status")}
		whole, _, err := m.ListSubscriptions(ctx, filter, List{Sort: order})
		if err != nil {
			r.Fatal(err)
		}
		descending := strings.HasPrefix(order, "-")
		if !slices.IsSortedFunc(whole, func(a, b Subscription) int {
			c := compareBy(strings.TrimPrefix(order, "-"), a, b)
			if descending {
				return -c
			}
			return c
		}) {
			r.Errorf("by %s: %v is in another order", order, ids(whole))
		}
		var paged []int64
		for {
			page, next, err := m.ListSubscriptions(ctx, filter, list)
			if err != nil {
				r.Fatal(err)
			}
			paged = append(paged, ids(page)...)
			if next == nil {
				break
			}
			first := list.After == nil
			if list.After = next; !first {
				continue
			}
			sub, _, err := m.AddSubscription(ctx, m.user.ID) // moves no other row
			if err == nil {
				_, err = m.RemoveSubscription(ctx, fmt.Sprint(sub.ID))
			}
			if err != nil {
				r.Fatal(err)
			}
		}
		if !slices.Equal(paged, ids(whole)) {
			r.Errorf("by %s: the pages have %v, want %v", order, paged, ids(whole))
		}
	})
}

func compareBy(order string, a, b Subscription) int {
	c := 0
	switch order {
	case "user":
		c = strings.Compare(a.UserName, b.UserName)
	case "expires":
		end := func(s Subscription) int64 {
			if s.ExpiresAt == nil {
				return 1 << 62
			}
			return millis(*s.ExpiresAt)
		}
		c = int(min(max(end(a)-end(b), -1), 1))
	}
	if c == 0 {
		c = int(a.ID - b.ID)
	}
	return c
}

// SQLite reads a page of each order by an index, the first page and another one: it sorts nothing.
func TestPagesUseIndexes(t *testing.T) {
	s := openSQLite(t)
	for _, sort := range []string{"id", "-id", "user", "-user", "expires", "-expires"} {
		for _, status := range []string{"", Active, Expired} {
			if status == Expired && strings.HasSuffix(sort, "user") {
				continue // few have a status other than active: they are sorted
			}
			for _, after := range []*Position{nil, {Value: int64(5), ID: 7}} {
				where, values := SubscriptionFilter{Status: status}.where(sort)
				query, args, _, err := listedSubscriptions.query(List{Sort: sort, Limit: 100, After: after}, where, values)
				if err != nil {
					t.Fatal(err)
				}
				rows, err := s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
				plan, err := collect(rows, err, func(r *sql.Rows) (step string, err error) {
					var id, parent, unused int64
					return step, r.Scan(&id, &parent, &unused, &step)
				})
				// The ids of one user's subscriptions may be sorted: they are few.
				if text := strings.Join(plan, "; "); err != nil || strings.Contains(text, "B-TREE FOR ORDER BY") {
					t.Errorf("by %s, with the status %q, after %v: %s, %v", sort, status, after, text, err)
				}
			}
		}
	}
}
