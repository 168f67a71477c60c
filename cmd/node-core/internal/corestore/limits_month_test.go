package corestore

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// An operator's month: a plan, a group, a hundred users on three nodes. Limits are passed on one
// node and on several, weeks and the month turn, a node goes over its budget, users renew and get other
// credentials, Core is away for a day, and so is a node, whose rows come late. The test counts for
// itself what each subscription has used, and compares once a day.
func TestOperatorsMonth(t *testing.T) {
	store := openStore(t)
	w := &world{t: t, now: time.Date(2030, 3, 1, 0, 0, 0, 0, time.UTC)}
	w.open(store)
	for i := range 3 {
		w.addNode(fmt.Sprint("node-", i), 1000)
	}
	group, err := store.AddGroup(t.Context(), Group{Name: "all", Nodes: []int64{w.nodes[0].id, w.nodes[1].id, w.nodes[2].id}})
	w.must(err)
	plan, err := store.AddPlan(t.Context(), Plan{Name: "daily", Terms: Terms{GroupID: group.ID, LimitBytes: 10_000, Period: "day"}})
	w.must(err)
	for i := range 100 {
		user, err := store.AddUser(t.Context(), fmt.Sprint("user-", i))
		w.must(err)
		sub := plan.Subscription(w.now)
		sub.UserID = user.ID
		if i%2 == 1 {
			sub.LimitBytes, sub.Period = int64(5_000*i), "none"
		}
		sub, _, err = store.InsertSubscription(t.Context(), sub)
		w.must(err)
		w.subs = append(w.subs, &worldSub{id: sub.ID, user: user.ID, limit: sub.LimitBytes, daily: sub.Period == "day", ends: w.midnight()})
	}
	// The third node stops once it has moved a part of what it would in the month.
	const budget = 400_000
	_, _, err = store.EditNode(t.Context(), "node-2", func(n *Node) error { n.BudgetBytes, n.BudgetAction = budget, "stop"; return nil })
	w.must(err)
	w.quick = true
	w.enforce()
	const steps = 4 // of a day
	limited, renewed := map[int64]bool{}, 0
	for step := range 30 * steps {
		day := step / steps
		switch away := step%steps == 0; {
		case away && day == 10: // Core
			for _, n := range w.nodes {
				n.connected = false
			}
		case away && day == 20:
			w.nodes[1].connected = false
		case away:
			for _, n := range w.nodes {
				n.connected = true
			}
		}
		for i, s := range w.subs {
			for j, n := range w.nodes {
				if (i+j+step)%3 != 0 {
					w.move(n, s, int64(200+55*((i+step)%50)))
				}
			}
		}
		for _, n := range w.nodes {
			w.send(n)
		}
		w.now = w.now.Add(24 * time.Hour / steps)
		if day == 10 {
			continue // Core is away: it neither cuts nor turns a period
		}
		w.enforce()
		if step%steps != steps-1 {
			continue
		}
		for i, s := range w.subs {
			w.check(s, outstanding{1 << 62, 1 << 62})
			if s.status() != Limited {
				continue
			}
			limited[s.id] = true
			switch i % 10 {
			case 1:
				w.edit(s, func(sub *Subscription) error { return sub.TopUp(20_000) }, func() { s.extra += 20_000 })
				renewed++
			case 3:
				w.edit(s, func(sub *Subscription) error { sub.Reset(w.now); return nil }, func() { s.used, s.extra, s.start = 0, 0, w.now })
				renewed++
			case 5:
				w.edit(s, func(sub *Subscription) error { sub.Rotate(); return nil }, func() {})
			}
		}
	}
	node, err := store.Node(t.Context(), "node-2")
	w.must(err)
	if node.BudgetUsedBytes < budget || node.BudgetUsedBytes > 2*budget || len(limited) < 20 || renewed < 20 {
		t.Errorf("the month had %d limited subscriptions and %d renewals, and the node moved %d of %d bytes", len(limited), renewed, node.BudgetUsedBytes, budget)
	}
	for _, s := range w.subs {
		var rows int64
		w.must(store.read.QueryRowContext(t.Context(), `SELECT coalesce(sum(bytes_down), 0) FROM usage WHERE subscription_id = ?`, s.id).Scan(&rows))
		sub, err := store.Subscription(t.Context(), strconv.FormatInt(s.id, 10))
		w.must(err)
		if rows != s.bytes || sub.BytesDown != s.bytes {
			t.Errorf("subscription %d has moved %d bytes, its rows have %d and its sum is %d", s.id, s.bytes, rows, sub.BytesDown)
		}
	}
}
