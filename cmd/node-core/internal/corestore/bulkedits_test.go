package corestore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// subscriptionEdits are changes of each kind that an edit can make.
var subscriptionEdits = map[string]func(n int64) func(*Subscription) error{
	"note": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error { s.Note = fmt.Sprint(n); return nil }
	},
	"addresses": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error { s.LimitIPs = n; return nil }
	},
	"bytes": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error { s.LimitBytes = n * 100; return nil }
	},
	"rate": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error { s.RateUpBitsPerSecond = n; return nil }
	},
	"switch": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error { s.Enabled = n%2 == 0; return nil }
	},
	"period": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error { s.Period = Periods[n%int64(len(Periods))]; return nil }
	},
	"first use": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error { s.ExpiresAfterSeconds = n * 60; return nil }
	},
	"credential": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error {
			s.Credentials = []Credential{{Protocol: "trojan", Password: fmt.Sprint(n)}}
			return nil
		}
	},
	"link": func(int64) func(*Subscription) error {
		return func(s *Subscription) error { s.RotateLink(); return nil }
	},
	"end": func(n int64) func(*Subscription) error {
		return func(s *Subscription) error {
			if s.ExpiresAfterSeconds, s.ExpiresAt = 0, nil; n > 0 {
				s.ExpiresAt = new(time.Date(2027, 3, 1, 18+int(n%5), 0, 0, 0, time.UTC))
			}
			return nil
		}
	},
}

// An edit among many in one call makes of a subscription the same as one by itself: its row, its events, and
// the nodes that hear of it.
func TestEditsOfManyAreThoseOfOne(t *testing.T) {
	l := newLimited(t, "2027-03-01T20:00:00Z")
	group, err := l.AddGroup(t.Context(), Group{Name: "family", Nodes: []int64{l.nodes[1]}})
	l.must(err)
	elsewhere, err := l.AddGroup(t.Context(), Group{Name: "nowhere", Protocols: []int64{l.protocols[2][0]}})
	l.must(err)
	rapid.Check(t, func(r *rapid.T) {
		newTwins(l, r, group.ID, elsewhere.ID).edit(r)
	})
}

// twins are subscriptions of which each is there twice.
type twins struct {
	*limited
	ones, manys []Subscription
}

func newTwins(l *limited, r *rapid.T, groups ...int64) twins {
	w := twins{limited: l}
	for range rapid.IntRange(1, 5).Draw(r, "subscriptions") {
		sub := Subscription{Terms: Terms{GroupID: rapid.SampledFrom(groups).Draw(r, "group"), LimitBytes: rapid.SampledFrom([]int64{0, 100}).Draw(r, "limit")}}
		one, many := l.add(sub), l.add(sub)
		if used := rapid.SampledFrom([]int64{0, 150}).Draw(r, "used"); used > 0 {
			l.use(1, one, used, l.clock())
			l.use(1, many, used, l.clock())
		}
		w.ones, w.manys = append(w.ones, one), append(w.manys, many)
	}
	_, err := l.raiseDue(l.t.Context(), time.Now().Add(time.Hour))
	l.must(err)
	return w
}

// edit makes the same edits of ones, one by one, and of manys, in one call.
func (w twins) edit(r *rapid.T) {
	ctx := w.t.Context()
	from, err := w.NewestEvent(ctx)
	w.must(err)
	before, raised, times := w.revisions(), []int64{}, map[int]int{}
	var many []SubscriptionEdit
	for n := range rapid.IntRange(1, 8).Draw(r, "edits") {
		i, kind := rapid.IntRange(0, len(w.ones)-1).Draw(r, "of"), rapid.SampledFrom(slices.Sorted(maps.Keys(subscriptionEdits))).Draw(r, "kind")
		edit := subscriptionEdits[kind](rapid.Int64Range(0, 4).Draw(r, "n"))
		_, nodes, err := w.EditSubscription(ctx, fmt.Sprint(w.ones[i].ID), edit)
		w.must(err)
		raised = append(raised, nodes...)
		name := fmt.Sprint(w.manys[i].ID)
		if n%2 == 1 {
			name = w.manys[i].UUID
		}
		many = append(many, SubscriptionEdit{name, edit})
		times[i]++
	}
	between := w.revisions()
	nodes, err := w.BulkSubscriptions(ctx, nil, many)
	w.must(err)
	if one, all := w.states(w.ones), w.states(w.manys); !slices.Equal(one, all) {
		r.Errorf("one by one:\n%s\ntogether:\n%s", strings.Join(one, "\n"), strings.Join(all, "\n"))
	}
	after := w.revisions()
	for i, id := range w.nodes {
		byOne, byMany := between[i] > before[i], after[i] > between[i]
		// Edits that undo each other raise nothing together.
		if byMany && !byOne || len(many) == 1 && byMany != byOne || byMany != slices.Contains(nodes, id) || byOne != slices.Contains(raised, id) {
			r.Errorf("node %d has another revision by single edits: %t, by one call: %t; they returned %v and %v", i, byOne, byMany, raised, nodes)
		}
	}
	page, err := w.EventsAfter(ctx, EventQuery{After: from, Limit: 1000})
	w.must(err)
	for i := range w.ones {
		if one, all := toldOf(page, w.ones[i]), toldOf(page, w.manys[i]); times[i] == 1 && !slices.Equal(one, all) {
			r.Errorf("the events one by one: %q, together: %q", one, all)
		}
	}
}

// states describes rows without what differs between twins.
func (w twins) states(subs []Subscription) (text []string) {
	for _, s := range subs {
		got, err := w.Subscription(w.t.Context(), fmt.Sprint(s.ID))
		w.must(err)
		times := fmt.Sprint(orNull(got.ExpiresAt), orNull(got.FirstUsedAt), orNull(got.periodEnds), orNull(got.PeriodStart))
		got.ID, got.UUID, got.MTProtoSecret, got.CreatedAt = 0, "", "", time.Time{}
		got.ExpiresAt, got.FirstUsedAt, got.periodEnds, got.PeriodStart = nil, nil, nil, nil
		text = append(text, fmt.Sprintf("%+v %s", got, times))
	}
	return text
}

// toldOf describes the events of a subscription.
func toldOf(page EventPage, sub Subscription) (all []string) {
	for _, e := range page.Events {
		if e.SubscriptionID == sub.ID {
			all = append(all, fmt.Sprint(e.Kind, e.User, e.UserID, string(e.Data), e.At))
		}
	}
	return all
}

// Users are renamed in one call as one after the other: a name that an earlier edit has left is free, and
// the one that it has given names the user.
func TestRenamesInOneCall(t *testing.T) {
	m := newModel(t)
	ctx := t.Context()
	for _, name := range []string{"a", "b", "c", "d"} {
		_, err := m.AddUser(ctx, name)
		m.must(err)
	}
	to := func(name string) func(*User) error { return func(u *User) error { u.Name = name; return nil } }
	note := func(text string) func(*User) error { return func(u *User) error { u.Note += text; return nil } }
	is := func(want ...string) {
		t.Helper()
		users, err := m.Users(ctx)
		m.must(err)
		var got []string
		for _, u := range users {
			got = append(got, u.Name+u.Note)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the users are %q, want %q", got, want)
		}
	}
	_, err := m.BulkUsers(ctx, nil, []UserEdit{{"a", to("x")}, {"b", to("a")}, {"x", to("b")}, {"b", note("1")}, {"a", note("2")}, {"c", to("e")}, {"e", note("3")}})
	m.must(err)
	is("alice", "b1", "a2", "e3", "d")
	for name, bad := range map[string]struct {
		edits []UserEdit
		row   int
		is    error
	}{
		"a name of somebody else":      {[]UserEdit{{"a", note("x")}, {"a", to("d")}}, 1, ErrExists},
		"a name of somebody who stays": {[]UserEdit{{"d", note("x")}, {"a", to("d")}}, 1, ErrExists},
		"a name that is given twice":   {[]UserEdit{{"a", to("z")}, {"b", to("z")}}, 1, ErrExists},
		"a name of before":             {[]UserEdit{{"a", to("z")}, {"a", note("x")}}, 1, ErrNotFound},
		"nobody":                       {[]UserEdit{{"a", note("x")}, {"77", note("x")}}, 1, ErrNotFound},
	} {
		_, err := m.BulkUsers(ctx, nil, bad.edits)
		if row, is := errors.AsType[RowError](err); !is || row.Row != bad.row || !errors.Is(err, bad.is) {
			t.Errorf("%s: got %v, want %v in row %d", name, err, bad.is, bad.row)
		}
	}
	is("alice", "b1", "a2", "e3", "d")
	var former int
	m.must(m.read.QueryRowContext(ctx, `SELECT count(*) FROM former_names`).Scan(&former))
	if former != 4 {
		t.Errorf("%d former names are kept, want 4", former)
	}
}

// Many users are disabled and enabled in one call: their subscriptions are let in nowhere meanwhile, and the
// nodes that those reach hear of it, and no others.
func TestUsersAreDisabledInOneCall(t *testing.T) {
	m := newModel(t)
	ctx := t.Context()
	group, err := m.AddGroup(ctx, Group{Name: "family", Nodes: []int64{m.nodes[1]}})
	m.must(err)
	var edits [2][]UserEdit
	var subs []Subscription
	for i := range 2*rowsPerInsert + 1 {
		u, err := m.AddUser(ctx, fmt.Sprint("user-", i))
		m.must(err)
		sub, _, err := m.InsertSubscription(ctx, Subscription{UserID: u.ID, Terms: Terms{GroupID: group.ID}})
		m.must(err)
		subs = append(subs, sub)
		for on := range edits {
			edits[on] = append(edits[on], UserEdit{u.Name, func(u *User) error { u.Enabled = on == 1; return nil }})
		}
	}
	for on, status := range []string{Disabled, Active} {
		for _, want := range [][]int{{1}, nil} { // the second time it changes nothing
			m.raises(fmt.Sprint("enabled: ", on), want, func(ctx context.Context) ([]int64, error) { return m.BulkUsers(ctx, nil, edits[on]) })
		}
		for _, sub := range subs {
			if got, err := m.Subscription(ctx, sub.UUID); err != nil || got.Status != status {
				t.Fatalf("subscription %d is %s (%v), want %s", sub.ID, got.Status, err, status)
			}
		}
	}
}
