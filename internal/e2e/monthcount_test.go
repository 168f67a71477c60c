package e2e

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"nodeagent/coreapi"
)

// begin begins the periods of the test's own count.
func (m *month) begin() {
	now := m.clock.now().In(m.zone)
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, m.zone)
	monday := today.AddDate(0, 0, -(int(today.Weekday())+6)%7)
	for _, s := range m.subs {
		start := [kinds]time.Time{daily: today, weekly: monday, lived: today.AddDate(0, 0, 1-today.Day())}[s.kind] // all were added on the first
		if s.began.Before(start) {
			s.began, s.used, s.usedTried, s.usedLate, s.extra = start, 0, 0, 0, 0
		}
	}
}

// list returns Core's subscriptions by id.
func (m *month) list() (map[int64]coreapi.Subscription, error) {
	all, err := coreapi.Collect(m.api.Subscriptions(m.ctx, url.Values{"limit": {"1000"}}))
	by := map[int64]coreapi.Subscription{}
	for _, s := range all {
		by[s.ID] = s
	}
	return by, err
}

// status is what a subscription has to be, by what Core says that it has used.
func (s *monthSub) status(used int64, now time.Time) string {
	switch {
	case !s.ends.IsZero() && !now.Before(s.ends):
		return coreapi.Expired
	case s.limit > 0 && used >= s.limit+s.extra:
		return coreapi.Limited
	case s.kind == lived && s.ends.IsZero():
		return coreapi.OnHold
	}
	return coreapi.Active
}

// agree waits until Core has what the test counted, and the statuses and periods that follow of it. Then
// the nodes that reach Core run what it says.
func (m *month) agree() map[int64]coreapi.Subscription {
	m.t.Helper()
	m.begin()
	var by map[int64]coreapi.Subscription
	must(m.t, Eventually(m.ctx, func() (err error) {
		if by, err = m.list(); err != nil {
			return err
		}
		for _, s := range m.subs {
			if err := s.agrees(by[s.id], m.clock.now()); err != nil {
				return err
			}
		}
		return nil
	}))
	must(m.t, Eventually(m.ctx, func() error {
		nodes, err := coreapi.Collect(m.api.Nodes(m.ctx, url.Values{}))
		for _, n := range nodes {
			if n.SyncStatus != "synced" && (n.Name != monthNames[awayNode] || !m.relay.isCut()) {
				err = errors.Join(err, fmt.Errorf("node %s is %s, %s", n.Name, n.Status, n.SyncStatus))
			}
		}
		return err
	}))
	return by
}

// agrees compares a subscription with the test's own count of it.
func (s *monthSub) agrees(is coreapi.Subscription, now time.Time) error {
	bytes, least, used := is.BytesUp+is.BytesDown, s.sent-s.late, (s.used-s.usedLate)/1000
	if bytes < least || bytes > least+s.tried || is.UsedBytes < used || is.UsedBytes > used+(s.usedTried+999)/1000 {
		return fmt.Errorf("subscription %d has moved %d bytes, %d of its period, and the test %d and %d, with up to %d and %d more", is.ID, bytes, is.UsedBytes, least, used, s.tried, s.usedTried/1000)
	}
	if is.ExpiresAt != nil && s.kind == lived {
		if !s.ends.IsZero() && s.ends.Sub(*is.ExpiresAt).Abs() > 3*time.Minute {
			return fmt.Errorf("subscription %d ends at %s, want about %s", is.ID, is.ExpiresAt, s.ends)
		}
		s.ends = *is.ExpiresAt
	}
	if want := s.status(is.UsedBytes, now); is.Status != want || is.ExtraBytes != s.extra {
		return fmt.Errorf("subscription %d is %s with %d of %d and %d bytes used at %s, want %s", is.ID, is.Status, is.UsedBytes, s.limit, s.extra, now, want)
	}
	if is.CreatedAt.Before(s.began) && (is.PeriodStart == nil || is.PeriodStart.Before(s.began)) {
		return fmt.Errorf("the period of subscription %d began at %v, want %s", is.ID, is.PeriodStart, s.began)
	}
	s.limited = s.limited || is.Status == coreapi.Limited
	return nil
}
