package corestore

import (
	"testing"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// An end that comes near is told once, and a later end again. So is a limit, once until usage begins
// anew.
func TestReminders(t *testing.T) {
	m := newModel(t)
	now := time.Now()
	soon, late := now.Add(48*time.Hour), now.Add(30*24*time.Hour)
	insert := func(sub Subscription) Subscription {
		t.Helper()
		sub.UserID = m.user.ID
		sub, _, err := m.InsertSubscription(t.Context(), sub)
		m.must(err)
		return sub
	}
	ends, lasts := insert(Subscription{ExpiresAt: &soon}), insert(Subscription{ExpiresAt: &late})
	limited := Subscription{}
	limited.LimitBytes = 1000
	limited = insert(limited)
	minute := now.Truncate(time.Minute)
	use := func(up, down int64) {
		t.Helper()
		minute = minute.Add(-time.Minute)
		_, err := m.AddUsage(t.Context(), m.nodes[0], "", []wire.UsageEntry{{UserID: m.user.ID, SubscriptionID: &limited.ID, NodeProtocolID: m.protocols[0][0], BytesUp: up, BytesDown: down, RecordedAt: minute}})
		m.must(err)
	}
	r := Reminders{Before: 72 * time.Hour, Percent: 80}
	var want []coreapi.EventKind
	look := func(at time.Time, more ...coreapi.EventKind) {
		t.Helper()
		for range 2 {
			m.must(m.remindOnce(t.Context(), r, at))
		}
		want = append(want, more...)
		wantKinds(t, m.Store, want...)
	}
	use(400, 399)
	look(now, coreapi.EventSubscriptionExpiring)
	use(1, 0)
	look(now, coreapi.EventSubscriptionLimitNear)
	use(50, 0)
	look(now)
	p, err := m.EventsAfter(t.Context(), EventQuery{Limit: 10})
	m.must(err)
	if e := p.Events[0]; e.SubscriptionID != ends.ID || e.User != "alice" || string(e.Data) != `{"expiresAt":"`+soon.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)+`"}` {
		t.Errorf("the end is told as %+v with %s", e, e.Data)
	}
	if e := p.Events[1]; e.SubscriptionID != limited.ID || string(e.Data) != `{"limitBytes":1000,"usedBytes":800}` {
		t.Errorf("the limit is told as %+v with %s", e, e.Data)
	}

	_, _, err = m.EditSubscription(t.Context(), ends.UUID, func(s *Subscription) error { s.ExpiresAt = new(late.Add(time.Hour)); return nil })
	m.must(err)
	look(now)
	_, _, err = m.EditSubscription(t.Context(), lasts.UUID, func(s *Subscription) error { s.Enabled = false; return nil })
	m.must(err)
	look(late.Add(-time.Hour), coreapi.EventSubscriptionExpiring) // of ends; the other is disabled

	_, _, err = m.EditSubscription(t.Context(), limited.UUID, func(s *Subscription) error { s.LimitBytes = 10_000; return nil })
	m.must(err)
	look(now)
	use(8000, 0)
	look(now, coreapi.EventSubscriptionLimitNear)
	r = Reminders{}
	_, _, err = m.EditSubscription(t.Context(), ends.UUID, func(s *Subscription) error { s.ExpiresAt = &soon; return nil })
	m.must(err)
	look(now)
}
