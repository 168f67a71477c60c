package corestore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// limited is a model whose clock the test moves.
type limited struct {
	*model
	now    atomic.Int64 // Unix milliseconds
	keys   int
	cursor int64
}

// newLimited begins at a time in RFC 3339.
func newLimited(t *testing.T, at string) *limited {
	l := &limited{model: newModel(t)}
	l.set(at)
	l.clock = func() time.Time { return time.UnixMilli(l.now.Load()).UTC() }
	return l
}

func (l *limited) set(at string) {
	l.t.Helper()
	to, err := time.Parse(time.RFC3339, at)
	l.must(err)
	l.now.Store(to.UnixMilli())
}

func (l *limited) pass(d time.Duration) { l.now.Add(d.Milliseconds()) }

func (l *limited) add(sub Subscription) Subscription {
	l.t.Helper()
	sub.UserID = l.user.ID
	sub, _, err := l.InsertSubscription(l.t.Context(), sub)
	l.must(err)
	return sub
}

// use sends one row of a node, of a minute.
func (l *limited) use(node int, sub Subscription, bytes int64, minute time.Time) {
	l.t.Helper()
	l.keys++
	_, err := l.AddUsage(l.t.Context(), l.nodes[node], fmt.Sprint("key-", l.keys), []wire.UsageEntry{
		{UserID: sub.UserID, SubscriptionID: &sub.ID, NodeProtocolID: l.protocols[node][0], BytesDown: bytes, RecordedAt: minute.Truncate(time.Minute)},
	})
	l.must(err)
}

// is checks the status of a subscription and what it has used.
func (l *limited) is(what string, sub Subscription, status string, used int64) {
	l.t.Helper()
	got, err := l.Subscription(l.t.Context(), sub.UUID)
	l.must(err)
	if got.Status != status || got.UsedBytes != used {
		l.t.Errorf("%s: it is %s with %d bytes used, want %s with %d", what, got.Status, got.UsedBytes, status, used)
	}
}

// enforced runs what is due, and checks which nodes get another document.
func (l *limited) enforced(what string, want ...int) {
	l.t.Helper()
	l.raises(what, want, func(ctx context.Context) ([]int64, error) {
		nodes, _, err := l.enforceOnce(ctx, l.clock())
		return nodes, err
	})
}

// told checks the events since the last call: their kinds and subscriptions, in order.
func (l *limited) told(what string, want ...string) {
	l.t.Helper()
	page, err := l.EventsAfter(l.t.Context(), EventQuery{After: l.cursor, Limit: 1000})
	l.must(err)
	l.cursor = page.Next
	var got []string
	for _, e := range page.Events {
		got = append(got, fmt.Sprint(e.Kind, " ", e.SubscriptionID, e.Node, " ", e.User, string(e.Data)))
	}
	if !slices.Equal(got, want) {
		l.t.Errorf("%s told %q, want %q", what, got, want)
	}
}

func (l *limited) edit(sub Subscription, change func(*Subscription) error) []int64 {
	l.t.Helper()
	_, nodes, err := l.EditSubscription(l.t.Context(), strconv.FormatInt(sub.ID, 10), change)
	l.must(err)
	slices.Sort(nodes)
	return nodes
}

// A row that reaches a limit limits the subscription with it. The nodes that the subscription is on
// get another document, and no others; a top-up, another limit and a reset let it in again.
func TestRowsReachLimits(t *testing.T) {
	l := newLimited(t, "2027-01-15T12:00:00Z")
	group, err := l.AddGroup(t.Context(), Group{Name: "family", Nodes: l.nodes[:2]})
	l.must(err)
	sub := l.add(Subscription{Terms: Terms{GroupID: group.ID, LimitBytes: 1000}})
	free := l.add(Subscription{})
	l.use(0, sub, 999, l.clock())
	l.use(0, free, 5000, l.clock())
	l.is("below the limit", sub, Active, 999)
	l.enforced("near the limit, grants", 0, 1)
	l.told("below the limit")
	l.use(1, sub, 1, l.clock())
	l.is("at the limit", sub, Limited, 1000)
	l.told("at the limit", fmt.Sprintf(`subscription.limited %d alice{"limitBytes":1000,"usedBytes":1000}`, sub.ID))
	l.is("without a limit", free, Active, 5000)
	l.enforced("at the limit", 0, 1)
	if on := l.on(sub.ID); len(on) > 0 {
		t.Errorf("it is limited, and on %v", on)
	}
	l.use(1, sub, 50, l.clock())
	l.enforced("beyond the limit")
	l.told("beyond the limit")
	for _, renewal := range []struct {
		what string
		edit func(*Subscription) error
		used int64
	}{
		{"a top-up", func(s *Subscription) error { return s.TopUp(100) }, 1050},
		{"a greater limit", func(s *Subscription) error { s.LimitBytes = 5000; return nil }, 1100},
		{"a reset", func(s *Subscription) error { s.Reset(l.clock()); return nil }, 0},
	} {
		if nodes := l.edit(sub, renewal.edit); !slices.Equal(nodes, l.nodes[:2]) {
			t.Errorf("%s gave nodes %v another document", renewal.what, nodes)
		}
		l.is(renewal.what, sub, Active, renewal.used)
		l.told(renewal.what, fmt.Sprintf(`subscription.renewed %d alice{}`, sub.ID))
		got, err := l.Subscription(t.Context(), sub.UUID)
		l.must(err)
		l.pass(documentEvery)
		l.use(0, sub, got.LimitBytes+got.ExtraBytes-got.UsedBytes, l.clock())
		l.is("used up after "+renewal.what, sub, Limited, got.LimitBytes+got.ExtraBytes)
		l.enforced("used up after "+renewal.what, 0, 1)
		l.told("used up after "+renewal.what, fmt.Sprintf(`subscription.limited %d alice{"limitBytes":%d,"usedBytes":%[2]d}`, sub.ID, got.LimitBytes+got.ExtraBytes))
	}
}

// A node gets one document for all limits that are reached within documentEvery.
func TestDocumentsOfLimitsAreFew(t *testing.T) {
	l := newLimited(t, "2027-01-15T12:00:00Z")
	var subs []Subscription
	for range 3 {
		subs = append(subs, l.add(Subscription{Terms: Terms{LimitBytes: 10}}))
	}
	l.now.Store(time.Now().Add(time.Hour).UnixMilli()) // later than the revisions, which have the real time
	l.use(0, subs[0], 10, l.clock())
	l.enforced("the first", 0, 1, 2)
	l.now.Store(slices.Max(l.revisions())) // the moment of that document
	l.use(0, subs[1], 10, l.clock())
	l.use(1, subs[2], 10, l.clock())
	l.is("the second", subs[1], Limited, 10)
	l.enforced("the next two, at once")
	_, next, err := l.enforceOnce(t.Context(), l.clock())
	l.must(err)
	if late := next.Sub(l.clock()); late <= 0 || late > documentEvery {
		t.Errorf("the next document comes in %s", late)
	}
	l.pass(documentEvery + time.Second)
	l.enforced("the next two", 0, 1, 2)
	l.enforced("nothing")
}

// Limits count a byte as often as its node's multiplier says, to the thousandth; the sums and the
// rows have the true bytes.
func TestMultipliersCountForLimits(t *testing.T) {
	l := newLimited(t, "2027-01-15T12:00:00Z")
	_, _, err := l.EditNode(t.Context(), "b", func(n *Node) error { n.Multiplier = 333; return nil })
	l.must(err)
	_, _, err = l.EditNode(t.Context(), "c", func(n *Node) error { n.Multiplier = 0; return nil })
	l.must(err)
	sub := l.add(Subscription{Terms: Terms{LimitBytes: 1000}})
	for range 10 { // 3,330 thousandths
		l.use(1, sub, 1, l.clock())
	}
	l.is("ten bytes that count 0.333", sub, Active, 3)
	l.use(1, sub, 2, l.clock()) // 3,996
	l.is("twelve of them", sub, Active, 3)
	l.use(1, sub, 1, l.clock()) // 4,329
	l.is("thirteen of them", sub, Active, 4)
	l.use(2, sub, 1<<40, l.clock())
	l.is("bytes that do not count", sub, Active, 4)
	l.use(0, sub, 996, l.clock())
	l.is("whole bytes", sub, Limited, 1000)
	got, err := l.Subscription(t.Context(), sub.UUID)
	l.must(err)
	if got.BytesDown != 13+1<<40+996 {
		t.Errorf("the sum is %d", got.BytesDown)
	}
}

func TestWeighedBytesStayInRange(t *testing.T) {
	for _, c := range []struct{ bytes, multiplier, whole, rest int64 }{
		{1, 1, 0, 1},
		{1001, 1500, 1501, 500},
		{maxSum, 1000, maxSum, 0},
		{maxSum, 1_000_000, maxSum, 0},
		{maxSum, 1001, maxSum, 0},
		{maxSum, 0, 0, 0},
		{maxSum, 500, maxSum / 2, 500},
	} {
		if whole, rest := weighed(c.bytes, c.multiplier); whole != c.whole || rest != c.rest {
			t.Errorf("%d bytes times %d thousandths are %d and %d thousandths, want %d and %d", c.bytes, c.multiplier, whole, rest, c.whole, c.rest)
		}
	}
}

// Periods turn at midnight of the zone. Rows that come late count for the period of their minute.
func TestPeriodsTurn(t *testing.T) {
	l := newLimited(t, "2027-03-27T20:00:00Z")
	berlin, err := time.LoadLocation("Europe/Berlin")
	l.must(err)
	l.must(l.SetTimezone(t.Context(), berlin))
	daily := l.add(Subscription{Terms: Terms{LimitBytes: 100, Period: "day"}})
	rolling := l.add(Subscription{Terms: Terms{LimitBytes: 100, Period: "rolling-month"}})
	l.use(0, daily, 150, l.clock())
	l.use(0, rolling, 150, l.clock())
	l.is("the day's limit", daily, Limited, 150)
	l.enforced("two limits", 0, 1, 2)
	l.set("2027-03-27T22:59:59Z")
	l.enforced("before midnight")
	_, next, err := l.enforceOnce(t.Context(), l.clock())
	l.must(err)
	if next.UTC().Format(time.RFC3339) != "2027-03-27T23:00:00Z" {
		t.Errorf("the next moment is %s", next)
	}
	late := l.clock()
	l.set("2027-03-27T23:00:00Z")
	l.enforced("midnight", 0, 1, 2)
	l.is("a new day", daily, Active, 0)
	l.is("the same month", rolling, Limited, 150)
	l.told("a day", fmt.Sprintf(`subscription.limited %d alice{"limitBytes":100,"usedBytes":150}`, daily.ID),
		fmt.Sprintf(`subscription.limited %d alice{"limitBytes":100,"usedBytes":150}`, rolling.ID), fmt.Sprintf(`subscription.renewed %d alice{}`, daily.ID))
	l.use(1, daily, 70, late)
	l.is("a row of the day before", daily, Active, 0)
	l.use(1, daily, 70, l.clock())
	l.is("a row of the new day", daily, Active, 70)
	// The day has 23 hours. Rows come before Enforce has turned it, of both days.
	l.set("2027-03-28T22:00:30Z")
	l.use(2, daily, 60, l.clock().Add(-time.Minute))
	l.use(2, daily, 50, l.clock())
	l.is("the day after", daily, Active, 50)
	l.set("2027-04-26T21:59:59Z")
	l.enforced("the last second of the rolling month")
	l.is("the last second of the rolling month", rolling, Limited, 150)
	l.set("2027-04-26T22:00:00Z")
	l.enforced("the rolling month", 0, 1, 2)
	l.is("the rolling month", rolling, Active, 0)
	got, err := l.Subscription(t.Context(), daily.UUID)
	l.must(err)
	if got.BytesDown != 150+70+70+60+50 {
		t.Errorf("the sum is %d", got.BytesDown)
	}
}

// Limits, ends and periods are right after the clock was ahead and is set back.
func TestClockIsSetBack(t *testing.T) {
	l := newLimited(t, "2027-03-10T12:00:00Z")
	sub := l.add(Subscription{Terms: Terms{LimitBytes: 100, Period: "day"}})
	l.use(0, sub, 50, l.clock())
	l.set("2027-03-12T12:00:00Z")
	l.enforced("two days ahead")
	l.is("two days ahead", sub, Active, 0)
	l.set("2027-03-10T12:01:00Z")
	l.use(0, sub, 60, l.clock())
	l.is("set back", sub, Active, 60)
	l.use(0, sub, 40, l.clock())
	l.is("set back", sub, Limited, 100)
	l.enforced("set back", 0, 1, 2)
}

// A life begins with the first minute of use, also where its row comes late, or at its last moment.
func TestLivesBegin(t *testing.T) {
	l := newLimited(t, "2027-03-10T12:00:00Z")
	used := l.add(Subscription{ExpiresAfterSeconds: 24 * 3600})
	unused := l.add(Subscription{ExpiresAfterSeconds: 24 * 3600, StartsBy: new(l.clock().Add(time.Hour))})
	l.set("2027-03-10T20:00:00Z")
	l.use(0, used, 1, l.clock().Add(-6*time.Hour))
	l.enforced("lives begin")
	for sub, want := range map[*Subscription]string{&used: "2027-03-11T14:00:00Z", &unused: "2027-03-11T13:00:00Z"} {
		got, err := l.Subscription(t.Context(), sub.UUID)
		l.must(err)
		if got.Status != Active || got.ExpiresAt == nil || got.ExpiresAt.Format(time.RFC3339) != want {
			t.Errorf("it is %s until %v, want %s", got.Status, got.ExpiresAt, want)
		}
	}
	l.set("2027-03-11T13:00:00Z")
	l.enforced("an end", 0, 1, 2)
	l.is("an end", unused, Expired, 0)
	l.told("an end", fmt.Sprintf(`subscription.expired %d alice{"expiresAt":"2027-03-11T13:00:00Z"}`, unused.ID))
	l.is("an end", used, Active, 1)
	// Before the end, from the end on; after it, from now on.
	l.set("2027-03-11T13:30:00Z")
	for sub, want := range map[*Subscription]string{&used: "2027-03-12T14:00:00Z", &unused: "2027-03-12T13:30:00Z"} {
		l.edit(*sub, func(s *Subscription) error { return s.Extend(l.clock(), 24*3600) })
		got, err := l.Subscription(t.Context(), sub.UUID)
		l.must(err)
		if got.Status != Active || got.ExpiresAt.Format(time.RFC3339) != want {
			t.Errorf("extended, it is %s until %v, want %s", got.Status, got.ExpiresAt, want)
		}
	}
}

// A node whose budget is used up serves nobody until the budget's next month, or goes on, as it
// says. What the node moved before it had a budget counts.
func TestBudgets(t *testing.T) {
	l := newLimited(t, "2027-02-10T12:00:00Z")
	sub := l.add(Subscription{})
	serves := func(what string, node int, want bool) {
		t.Helper()
		n, err := l.NodeByID(t.Context(), l.nodes[node])
		l.must(err)
		if n.Serves() != want {
			t.Errorf("%s: the node serves: %t; %d of %d bytes used", what, n.Serves(), n.BudgetUsedBytes, n.BudgetBytes)
		}
	}
	l.use(0, sub, 400, l.clock())
	l.use(0, sub, 5000, l.clock().AddDate(0, -1, 0))
	for _, name := range []string{"a", "b"} {
		_, _, err := l.EditNode(t.Context(), name, func(n *Node) error {
			n.BudgetBytes, n.BudgetDay, n.BudgetAction = 1000, 31, "warn"
			if name == "a" {
				n.BudgetAction = "stop"
			}
			return nil
		})
		l.must(err)
	}
	l.pass(time.Minute)
	l.use(0, sub, 599, l.clock())
	l.use(0, sub, 100, l.clock().AddDate(0, -1, 0))
	l.enforced("below the budget")
	l.told("below the budget", `node.budget_near 0a {"budgetBytes":1000,"usedBytes":999,"action":"stop"}`)
	serves("below the budget", 0, true)
	l.use(0, sub, 1, l.clock())
	l.use(1, sub, 2000, l.clock())
	l.enforced("the budget", 0)
	l.told("the budget", `node.budget_reached 0a {"budgetBytes":1000,"usedBytes":1000,"action":"stop"}`, `node.budget_reached 0b {"budgetBytes":1000,"usedBytes":2000,"action":"warn"}`)
	serves("stop", 0, false)
	serves("warn", 1, true)
	l.set("2027-02-27T23:59:00Z")
	l.enforced("before the budget's day")
	l.set("2027-02-28T00:00:00Z") // February lacks the 31st
	l.enforced("the budget's day", 0)
	serves("a new month", 0, true)
	l.use(0, sub, 1000, l.clock())
	l.pass(documentEvery)
	l.enforced("the next budget", 0)
	serves("the next budget", 0, false)
	_, nodes, err := l.EditNode(t.Context(), "a", func(n *Node) error { n.BudgetBytes = 2000; return nil })
	l.must(err)
	serves("a greater budget", 0, true)
	if !slices.Equal(nodes, l.nodes[:1]) {
		t.Errorf("a greater budget gave nodes %v another document", nodes)
	}
	// A budget that an edit sets below what is used is told of, once.
	l.told("usage", `node.budget_reached 0a {"budgetBytes":1000,"usedBytes":1000,"action":"stop"}`)
	for range 2 {
		_, _, err = l.EditNode(t.Context(), "a", func(n *Node) error { n.BudgetBytes = 500; return nil })
		l.must(err)
	}
	l.told("a smaller budget", `node.budget_reached 0a {"budgetBytes":500,"usedBytes":1000,"action":"stop"}`)
	serves("a smaller budget", 0, false)
	_, _, err = l.EditNode(t.Context(), "a", func(n *Node) error { n.BudgetBytes = 1100; return nil })
	l.must(err)
	l.told("a budget that is nearly used, of which it was told")
	serves("a budget that is nearly used", 0, true)
	_, nodes, err = l.EditNode(t.Context(), "a", func(n *Node) error { n.Maintenance = true; return nil })
	l.must(err)
	serves("maintenance", 0, false)
	if !slices.Equal(nodes, l.nodes[:1]) {
		t.Errorf("maintenance gave nodes %v another document", nodes)
	}
}

// A step that fails stops no other one.
func TestStepsOfLimitsFailAlone(t *testing.T) {
	l := newLimited(t, "2027-03-01T20:00:00Z")
	l.add(Subscription{ExpiresAt: new(l.clock().Add(time.Hour))})
	daily := l.add(Subscription{Terms: Terms{LimitBytes: 100, Period: "day"}})
	l.use(0, daily, 150, l.clock())
	l.enforced("a limit", 0, 1, 2)
	statements := []string{`CREATE TRIGGER broken BEFORE UPDATE OF expired ON subscriptions WHEN NEW.expired = 1 BEGIN SELECT RAISE(ABORT, 'it is broken'); END`}
	if l.direct != nil { // PostgreSQL
		statements = []string{
			`CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'it is broken'; END $$`,
			`CREATE TRIGGER broken BEFORE UPDATE OF expired ON subscriptions FOR EACH ROW WHEN (NEW.expired = 1) EXECUTE FUNCTION break_it()`,
		}
	}
	for _, statement := range statements {
		_, err := l.write.ExecContext(t.Context(), statement)
		l.must(err)
	}
	l.pass(24 * time.Hour)
	nodes, next, err := l.enforceOnce(t.Context(), l.clock())
	if err == nil || !strings.Contains(err.Error(), "end subscriptions") || !strings.Contains(err.Error(), "it is broken") {
		t.Errorf("the error is %v", err)
	}
	if len(nodes) != 3 || next.IsZero() {
		t.Errorf("%d nodes get another document, and something is due at %s", len(nodes), next)
	}
	l.is("a new day", daily, Active, 0)
}
