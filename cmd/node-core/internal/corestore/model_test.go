package corestore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// model is a database with three nodes, each with two inbounds, and one user.
type model struct {
	t *testing.T
	*Store
	nodes     []int64
	protocols [][2]int64
	user      User
}

func newModel(t *testing.T) *model {
	m := &model{t: t, Store: openStore(t)}
	for _, name := range []string{"a", "b", "c"} {
		node, _, err := m.AddNode(t.Context(), name, "", time.Hour)
		m.must(err)
		var ids [2]int64
		for i := range ids {
			p, err := m.AddProtocol(t.Context(), Protocol{NodeID: node.ID, Protocol: "vless", Listen: "0.0.0.0", Port: 1000 + i, Config: []byte(`{}`)})
			m.must(err)
			ids[i] = p.ID
		}
		m.nodes, m.protocols = append(m.nodes, node.ID), append(m.protocols, ids)
	}
	var err error
	m.user, err = m.AddUser(t.Context(), "alice")
	m.must(err)
	return m
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// raises runs a change and checks which nodes got another revision: those that it returned, and
// no others.
func (m *model) raises(what string, want []int, change func(context.Context) ([]int64, error)) {
	m.t.Helper()
	before := m.revisions()
	returned, err := change(m.t.Context())
	if err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
	after := m.revisions()
	for i, id := range m.nodes {
		raised, told := after[i] > before[i], slices.Contains(returned, id)
		if wanted := slices.Contains(want, i); raised != wanted || told != wanted {
			m.t.Errorf("%s: node %d has another revision: %t, is returned: %t, want %t", what, i, raised, told, wanted)
		}
	}
}

func (m *model) revisions() (all []int64) {
	for _, id := range m.nodes {
		revision, err := m.Revision(m.t.Context(), id)
		m.must(err)
		all = append(all, revision)
	}
	return all
}

// on returns the places at which the subscription is served, as 10*node+inbound.
func (m *model) on(id int64) (places []int) {
	for i, node := range m.nodes {
		rows, err := m.NodeRows(m.t.Context(), node)
		m.must(err)
		for _, sub := range rows.Subscriptions {
			for j, protocol := range m.protocols[i] {
				if sub.ID == id && rows.Reach.Has(sub.GroupID, protocol) {
					places = append(places, 10*i+j)
				}
			}
		}
	}
	return places
}

// A group lets its subscriptions in where it reaches, and a change raises the revision of the
// nodes concerned alone.
func TestGroupsReachTheirNodes(t *testing.T) {
	m := newModel(t)
	group, err := m.AddGroup(t.Context(), Group{Name: "family", Nodes: []int64{m.nodes[0]}, Protocols: []int64{m.protocols[1][1]}})
	m.must(err)
	var sub Subscription
	m.raises("add", []int{0, 1}, func(ctx context.Context) (nodes []int64, err error) {
		sub, nodes, err = m.InsertSubscription(ctx, Subscription{UserID: m.user.ID, Terms: Terms{GroupID: group.ID}})
		return nodes, err
	})
	everywhere, _, err := m.AddSubscription(t.Context(), m.user.ID)
	m.must(err)
	if got := m.on(sub.ID); !slices.Equal(got, []int{0, 1, 11}) {
		t.Errorf("it is on %v", got)
	}
	id := strconv.FormatInt(sub.ID, 10)
	edit := func(change func(*Subscription)) func(context.Context) ([]int64, error) {
		return func(ctx context.Context) ([]int64, error) {
			_, nodes, err := m.EditSubscription(ctx, id, func(s *Subscription) error { change(s); return nil })
			return nodes, err
		}
	}
	m.raises("a limit of addresses", []int{0, 1}, edit(func(s *Subscription) { s.LimitIPs = 2 }))
	m.raises("a limit of bytes, which nodes do not know", nil, edit(func(s *Subscription) { s.LimitBytes = 1000 }))
	m.raises("a note", nil, edit(func(s *Subscription) { s.Note = "x" }))
	m.raises("rotate", []int{0, 1}, edit((*Subscription).Rotate))
	editGroup := func(change func(*Group)) func(context.Context) ([]int64, error) {
		return func(ctx context.Context) ([]int64, error) {
			_, nodes, err := m.EditGroup(ctx, "family", func(g *Group) error { change(g); return nil })
			return nodes, err
		}
	}
	m.raises("another inbound of one node", []int{1}, editGroup(func(g *Group) { g.Protocols = []int64{m.protocols[1][0]} }))
	m.raises("an inbound of a node that it reaches", nil, editGroup(func(g *Group) { g.Protocols = append(g.Protocols, m.protocols[0][0]) }))
	m.raises("one node for another", []int{0, 2}, editGroup(func(g *Group) { g.Nodes, g.Protocols = []int64{m.nodes[2]}, []int64{m.protocols[1][0]} }))
	if got := m.on(sub.ID); !slices.Equal(got, []int{10, 20, 21}) {
		t.Errorf("it is on %v", got)
	}
	m.raises("a name", nil, editGroup(func(g *Group) { g.Name, g.Note = "friends", "x" }))
	m.raises("disable", []int{1, 2}, edit(func(s *Subscription) { s.Enabled = false }))
	m.raises("rotate a disabled one", nil, edit((*Subscription).Rotate))
	m.raises("into the default group, disabled", nil, edit(func(s *Subscription) { s.GroupID = DefaultGroup }))
	m.raises("enable", []int{0, 1, 2}, edit(func(s *Subscription) { s.Enabled = true }))
	m.raises("back", []int{0, 1, 2}, edit(func(s *Subscription) { s.GroupID = group.ID }))
	if got := m.on(everywhere.ID); len(got) != 6 {
		t.Errorf("one of the default group is on %v", got)
	}
	if _, err := m.RemoveGroup(t.Context(), "friends"); !errors.Is(err, ErrInUse) {
		t.Errorf("removing a group that is in use gave %v", err)
	}
	if _, err := m.RemoveGroup(t.Context(), "default"); !errors.Is(err, ErrInUse) {
		t.Errorf("removing the default group gave %v", err)
	}
	m.raises("remove", []int{1, 2}, func(ctx context.Context) ([]int64, error) { return m.RemoveSubscription(ctx, id) })
	if _, err := m.RemoveGroup(t.Context(), "friends"); err != nil {
		t.Error(err)
	}
}

// A disabled user is let in nowhere; the subscriptions' own switches are kept.
func TestUsersAreDisabled(t *testing.T) {
	m := newModel(t)
	on, _, err := m.AddSubscription(t.Context(), m.user.ID)
	m.must(err)
	off, _, err := m.AddSubscription(t.Context(), m.user.ID)
	m.must(err)
	_, _, err = m.EnableSubscription(t.Context(), off.UUID, false)
	m.must(err)
	enable := func(enabled bool) func(context.Context) ([]int64, error) {
		return func(ctx context.Context) ([]int64, error) {
			_, nodes, err := m.EditUser(ctx, "alice", func(u *User) error { u.Enabled = enabled; return nil })
			return nodes, err
		}
	}
	m.raises("disable", []int{0, 1, 2}, enable(false))
	m.raises("disable again", nil, enable(false))
	var late Subscription
	m.raises("add one for a disabled user", nil, func(ctx context.Context) (nodes []int64, err error) {
		late, nodes, err = m.AddSubscription(ctx, m.user.ID)
		return nodes, err
	})
	for _, sub := range []Subscription{on, off, late} {
		if got := m.on(sub.ID); len(got) > 0 {
			t.Errorf("subscription %d of a disabled user is on %v", sub.ID, got)
		}
	}
	m.raises("enable", []int{0, 1, 2}, enable(true))
	if len(m.on(on.ID)) != 6 || len(m.on(late.ID)) != 6 || len(m.on(off.ID)) != 0 {
		t.Error("the user is enabled, and the subscriptions are not as they were")
	}
}

// A subscription that expires is left out of documents at that time, on the nodes concerned
// alone.
func TestSubscriptionsExpire(t *testing.T) {
	m := newModel(t)
	group, err := m.AddGroup(t.Context(), Group{Name: "family", Nodes: []int64{m.nodes[1]}})
	m.must(err)
	changed := make(chan []int64, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Enforce(ctx, func(nodes ...int64) {
			if len(nodes) > 0 {
				changed <- nodes
			}
		}, func(err error) { t.Error(err) })
	}()
	defer func() { cancel(); <-ended }()
	sub, _, err := m.InsertSubscription(t.Context(), Subscription{UserID: m.user.ID, Terms: Terms{GroupID: group.ID}})
	m.must(err)
	later, _, err := m.InsertSubscription(t.Context(), Subscription{UserID: m.user.ID, ExpiresAt: new(time.Now().Add(time.Hour))})
	m.must(err)
	end := func(at *time.Time) Subscription {
		got, _, err := m.EditSubscription(t.Context(), sub.UUID, func(s *Subscription) error { s.ExpiresAt = at; return nil })
		m.must(err)
		return got
	}
	before := m.revisions()
	end(new(time.Now().Add(50 * time.Millisecond)))
	if got := <-changed; !slices.Equal(got, m.nodes[1:2]) {
		t.Errorf("nodes %v were changed", got)
	}
	after := m.revisions()
	if after[0] != before[0] || after[1] <= before[1] || after[2] != before[2] {
		t.Errorf("revisions %v became %v", before, after)
	}
	if got, _ := m.Subscription(t.Context(), sub.UUID); got.Status != Expired || len(m.on(sub.ID)) > 0 || len(m.on(later.ID)) != 6 {
		t.Errorf("it is %s, on %v", got.Status, m.on(sub.ID))
	}
	if got := end(nil); got.Status != Active || len(m.on(sub.ID)) != 2 {
		t.Errorf("it never expires, and is %s", got.Status)
	}
	if got := end(new(time.Now().Add(-time.Hour))); got.Status != Expired || len(m.on(sub.ID)) > 0 {
		t.Errorf("its end is over, and it is %s", got.Status)
	}
}

// A subscription on hold is let in, and its life begins with its first bytes.
func TestFirstUseBeginsALife(t *testing.T) {
	m := newModel(t)
	sub, _, err := m.InsertSubscription(t.Context(), Subscription{UserID: m.user.ID, ExpiresAfterSeconds: 3600})
	m.must(err)
	if sub.Status != OnHold || len(m.on(sub.ID)) != 6 {
		t.Fatalf("it is %s", sub.Status)
	}
	use := func(key string, bytes int64) Subscription {
		_, err := m.AddUsage(t.Context(), m.nodes[0], key, []wire.UsageEntry{{UserID: m.user.ID, SubscriptionID: &sub.ID, NodeProtocolID: m.protocols[0][0], BytesUp: bytes, RecordedAt: time.Now()}})
		m.must(err)
		got, err := m.Subscription(t.Context(), sub.UUID)
		m.must(err)
		return got
	}
	if got := use("1", 0); got.Status != OnHold {
		t.Errorf("after a row of no bytes it is %s", got.Status)
	}
	first := use("2", 5)
	if first.Status != Active || first.ExpiresAt == nil || first.ExpiresAt.Sub(*first.FirstUsedAt) != time.Hour {
		t.Errorf("after its first use it is %s until %v", first.Status, first.ExpiresAt)
	}
	if got := use("3", 5); !got.ExpiresAt.Equal(*first.ExpiresAt) {
		t.Errorf("a second use moved its end from %v to %v", first.ExpiresAt, got.ExpiresAt)
	}
	reset, _, err := m.EditSubscription(t.Context(), sub.UUID, func(s *Subscription) error { s.Reset(time.Now()); return nil })
	m.must(err)
	if got := use("4", 7); got.UsedBytes != 7 || got.BytesUp != 17 || reset.UsedBytes != 0 {
		t.Errorf("after a reset and 7 bytes: %d used of %d in all", got.UsedBytes, got.BytesUp)
	}
}

// Terms come from a plan as a copy.
func TestPlansAreCopied(t *testing.T) {
	m := newModel(t)
	plan, err := m.AddPlan(t.Context(), Plan{Name: "basic", Terms: Terms{LimitBytes: 10, Period: "month", LimitIPs: 2}, ExpiresAfterSeconds: 60})
	m.must(err)
	if _, err := m.AddPlan(t.Context(), Plan{Name: "basic"}); !errors.Is(err, ErrExists) {
		t.Errorf("a second plan of the name gave %v", err)
	}
	if _, err := m.AddPlan(t.Context(), Plan{Name: "odd", Terms: Terms{Period: "fortnight"}}); err == nil {
		t.Error("a period of a fortnight was taken")
	}
	of := plan.Subscription(time.Now())
	of.UserID = m.user.ID
	sub, _, err := m.InsertSubscription(t.Context(), of)
	m.must(err)
	_, err = m.EditPlan(t.Context(), "basic", func(p *Plan) error { p.LimitBytes, p.Name = 20, "more"; return nil })
	m.must(err)
	got, err := m.FindSubscriptions(t.Context(), SubscriptionFilter{PlanID: plan.ID})
	m.must(err)
	if len(got) != 1 || got[0].ID != sub.ID || got[0].LimitBytes != 10 || got[0].Period != "month" || got[0].ExpiresAt == nil {
		t.Errorf("got %+v", got)
	}
	if _, err := m.RemovePlan(t.Context(), "more"); err != nil {
		t.Error(err)
	}
	if got, _ := m.Subscription(t.Context(), sub.UUID); got.PlanID != 0 || got.LimitBytes != 10 {
		t.Errorf("its plan was removed, and it has %+v", got)
	}
}

// An erased user leaves sums without a name, also where the user was removed before.
func TestErasedUsersLeaveSums(t *testing.T) {
	for _, removed := range []bool{false, true} {
		m := newModel(t)
		sub, _, err := m.AddSubscription(t.Context(), m.user.ID)
		m.must(err)
		other, err := m.AddUser(t.Context(), "bob")
		m.must(err)
		kept, _, err := m.AddSubscription(t.Context(), other.ID)
		m.must(err)
		minute := time.Now().UTC().Truncate(time.Minute)
		for _, of := range []Subscription{sub, kept} {
			_, err := m.AddUsage(t.Context(), m.nodes[0], strconv.FormatInt(of.ID, 10), []wire.UsageEntry{
				{UserID: of.UserID, SubscriptionID: &of.ID, NodeProtocolID: m.protocols[0][0], BytesUp: 3, BytesDown: 4, RecordedAt: minute},
				{UserID: of.UserID, SubscriptionID: &of.ID, NodeProtocolID: m.protocols[0][1], BytesUp: 5, BytesDown: 6, RecordedAt: minute},
			})
			m.must(err)
			m.must(m.AddSessionEvents(t.Context(), m.nodes[0], "", []wire.SessionEvent{{UserID: of.UserID, EventType: wire.Online, OccurredAt: minute, IPAddress: "192.0.2.1"}}))
		}
		if removed {
			_, err := m.RemoveUser(t.Context(), m.user.ID)
			m.must(err)
			var name string
			m.must(m.read.QueryRowContext(t.Context(), `SELECT name FROM removed_names WHERE kind = 'subscription' AND id = ?`, sub.ID).Scan(&name))
			if name != "alice" {
				t.Errorf("the name beside the usage rows is %q", name)
			}
		}
		erased, _, err := m.Erase(t.Context(), "alice")
		m.must(err)
		if erased != (Erased{User: m.user.ID, Rows: 2, Events: 1}) {
			t.Errorf("erased %+v", erased)
		}
		rows, err := m.Usage(t.Context(), 100)
		m.must(err)
		sums := map[int64]int64{}
		for _, r := range rows {
			sums[r.UserID] += r.BytesUp + r.BytesDown
		}
		if len(sums) != 2 || sums[0] != 18 || sums[other.ID] != 18 {
			t.Errorf("sums by user are %v", sums)
		}
		var left int
		m.must(m.read.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM removed_names) + (SELECT count(*) FROM session_events) + (SELECT count(*) FROM users)`).Scan(&left))
		if left != 2 { // bob, and bob's event
			t.Errorf("%d rows are left", left)
		}
		if _, _, err := m.Erase(t.Context(), "alice"); !errors.Is(err, ErrNotFound) {
			t.Errorf("erasing again gave %v", err)
		}
	}
}

// Lists are filtered.
func TestSubscriptionsAreFound(t *testing.T) {
	m := newModel(t)
	bob, err := m.InsertUser(t.Context(), User{Name: "Bob_1", Contact: map[string]string{"telegram": "@bobby"}})
	m.must(err)
	var all []Subscription
	for _, user := range []int64{m.user.ID, bob.ID, bob.ID} {
		sub, _, err := m.InsertSubscription(t.Context(), Subscription{UserID: user, Note: "100%"})
		m.must(err)
		all = append(all, sub)
	}
	_, _, err = m.EnableSubscription(t.Context(), all[2].UUID, false)
	m.must(err)
	for name, c := range map[string]struct {
		filter SubscriptionFilter
		want   []int
	}{
		"all":                  {SubscriptionFilter{}, []int{0, 1, 2}},
		"of a user":            {SubscriptionFilter{UserID: bob.ID}, []int{1, 2}},
		"active":               {SubscriptionFilter{Status: Active}, []int{0, 1}},
		"a part of the name":   {SubscriptionFilter{Search: "bob_"}, []int{1, 2}},
		"no wildcard":          {SubscriptionFilter{Search: "b_b"}, nil},
		"the note":             {SubscriptionFilter{Search: "0%"}, []int{0, 1, 2}},
		"a UUID":               {SubscriptionFilter{Search: all[1].UUID}, []int{1}},
		"a part of a UUID":     {SubscriptionFilter{Search: all[1].UUID[:8]}, nil},
		"the first":            {SubscriptionFilter{Limit: 1}, []int{0}},
		"the status of a user": {SubscriptionFilter{UserID: bob.ID, Status: Disabled}, []int{2}},
	} {
		found, err := m.FindSubscriptions(t.Context(), c.filter)
		m.must(err)
		var got []int
		for _, sub := range found {
			got = append(got, slices.IndexFunc(all, func(s Subscription) bool { return s.ID == sub.ID }))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", name, got, c.want)
		}
	}
	page, next, err := m.ListSubscriptions(t.Context(), SubscriptionFilter{UserID: bob.ID}, List{After: &Position{ID: all[0].ID}, Limit: 1})
	m.must(err)
	if len(page) != 1 || page[0].ID != all[1].ID || next == nil || next.ID != all[1].ID {
		t.Errorf("the page has %+v, and the next one is after %+v", page, next)
	}
	users, err := m.FindUsers(t.Context(), UserFilter{Search: "@BOBBY"})
	m.must(err)
	if len(users) != 1 || users[0].Contact["telegram"] != "@bobby" {
		t.Errorf("found %+v", users)
	}
}
