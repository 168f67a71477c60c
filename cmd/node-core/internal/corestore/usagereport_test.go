package corestore

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// The rows of a report are the sums of what was stored, in each step of each zone: also where
// the clock jumps, and where a zone is half an hour off.
func TestReportSumsUp(t *testing.T) {
	s := openStore(t)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same rows in each run
	var entries []wire.UsageEntry
	begin := time.Date(2026, 10, 24, 20, 0, 0, 0, time.UTC) // Berlin's clock goes back on the 25th
	for range 300 {
		entries = append(entries, wire.UsageEntry{
			UserID: random.Int64N(4), NodeProtocolID: 1, BytesUp: random.Int64N(1 << 40), BytesDown: random.Int64N(1 << 50),
			RecordedAt: begin.Add(time.Duration(random.IntN(9*24*60)) * time.Minute),
		})
	}
	if _, err := s.AddUsage(t.Context(), 1, "", entries); err != nil {
		t.Fatal(err)
	}
	since, until := begin.Add(30*time.Hour), begin.Add(8*24*time.Hour)
	for _, zone := range []string{"UTC", "Europe/Berlin", "Asia/Kolkata"} {
		location, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for step, layout := range map[string]string{"": "x", "minute": time.RFC3339, "hour": "2006-01-02T15 -0700", "day": "2006-01-02", "month": "2006-01"} {
			want := map[string][2]int64{}
			var totals [2]int64
			for _, e := range entries {
				if e.RecordedAt.Before(since) || !e.RecordedAt.Before(until) {
					continue
				}
				key := fmt.Sprint(e.UserID, " ", e.RecordedAt.In(location).Format(layout))
				want[key] = [2]int64{want[key][0] + e.BytesUp, want[key][1] + e.BytesDown}
				totals = [2]int64{totals[0] + e.BytesUp, totals[1] + e.BytesDown}
			}
			query := ReportQuery{By: "user", Since: since, Until: until, Step: step, Location: location}
			got := map[string][2]int64{}
			for row, err := range s.Report(t.Context(), query) {
				if err != nil {
					t.Fatal(err)
				}
				key := fmt.Sprint(row.ID, " x")
				if row.Time != nil {
					key = fmt.Sprint(row.ID, " ", row.Time.Format(layout))
				}
				if _, twice := got[key]; twice {
					t.Errorf("%s, %q: two rows for %s", zone, step, key)
				}
				got[key] = [2]int64{row.BytesUp, row.BytesDown}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s, %q: got %d rows %v, want %d rows %v", zone, step, len(got), got, len(want), want)
			}
			if sum, err := s.ReportTotals(t.Context(), query); err != nil || [2]int64{sum.BytesUp, sum.BytesDown} != totals {
				t.Errorf("%s, %q: the totals are %+v, want %v (%v)", zone, step, sum, totals, err)
			}
		}
	}
}

// A report knows names, also of what was removed, and a sum that is too great stays at the greatest.
func TestReportNames(t *testing.T) {
	s := openStore(t)
	user, err := s.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := s.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	node, _, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.AddProtocol(t.Context(), Protocol{NodeID: node.ID, Tag: "in", Protocol: "vless", Port: 1, Config: []byte(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	minute := time.Now().Truncate(time.Minute).UTC()
	for i := range 3 {
		entry := wire.UsageEntry{UserID: user.ID, SubscriptionID: &sub.ID, NodeProtocolID: p.ID, BytesUp: 1, BytesDown: maxSum / 2, RecordedAt: minute.Add(-time.Duration(i) * time.Minute)}
		if _, err := s.AddUsage(t.Context(), node.ID, "", []wire.UsageEntry{entry}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(by string, id int64, name string) {
		t.Helper()
		n := 0
		for row, err := range s.Report(t.Context(), ReportQuery{By: by, Location: time.UTC}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if row.ID != id || row.Name != name || row.BytesUp != 3 || row.BytesDown != maxSum || row.Time != nil {
				t.Errorf("by %s: got %+v, want %d %q", by, row, id, name)
			}
		}
		if n != 1 {
			t.Errorf("by %s: %d rows", by, n)
		}
	}
	check("user", user.ID, "alice")
	check("subscription", sub.ID, "alice")
	check("node", node.ID, "fra1")
	check("protocol", p.ID, "fra1/in")
	check("group", DefaultGroup, "default")
	gone, err := s.AddProtocol(t.Context(), Protocol{NodeID: node.ID, Tag: "with the node", Protocol: "vless", Port: 2, Config: []byte(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveUser(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveProtocol(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	check("protocol", p.ID, "fra1/in")
	if _, err := s.RemoveProtocol(t.Context(), p.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed once more: %v", err)
	}
	if err := s.RemoveNode(t.Context(), node.ID); err != nil {
		t.Fatal(err)
	}
	check("user", user.ID, "alice")
	check("subscription", sub.ID, "alice")
	check("node", node.ID, "fra1")
	check("protocol", p.ID, "fra1/in")
	check("group", 0, "")
	var name string
	if err := s.read.QueryRowContext(t.Context(), `SELECT name FROM removed_names WHERE kind = 'protocol' AND id = ?`, gone.ID).Scan(&name); err != nil || name != "fra1/with the node" {
		t.Errorf("the inbound that went with its node is %q (%v)", name, err)
	}
}

// The list of online clients follows the events, also ones that come twice.
func TestOnline(t *testing.T) {
	s := openStore(t)
	node, _, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	event := func(kind wire.SessionEventType, user int64, ip string, minute int) wire.SessionEvent {
		return wire.SessionEvent{UserID: user, Protocol: "vless", EventType: kind, OccurredAt: at.Add(time.Duration(minute) * time.Minute), IPAddress: ip}
	}
	for _, step := range []struct {
		events []wire.SessionEvent
		want   string
	}{
		{[]wire.SessionEvent{event(wire.Online, 1, "192.0.2.1", 0), event(wire.Online, 1, "192.0.2.2", 1), event(wire.Online, 2, "", 1)}, "1@192.0.2.1 1@192.0.2.2 2@"},
		{[]wire.SessionEvent{event(wire.Online, 1, "192.0.2.1", 2)}, "1@192.0.2.1 1@192.0.2.2 2@"},
		{[]wire.SessionEvent{event(wire.Offline, 1, "192.0.2.1", 3), event(wire.Offline, 2, "", 3)}, "1@192.0.2.2"},
		{[]wire.SessionEvent{event(wire.Offline, 1, "192.0.2.9", 4), event(wire.Online, 1, "192.0.2.1", 5)}, "1@192.0.2.1 1@192.0.2.2"},
	} {
		if err := s.AddSessionEvents(t.Context(), node.ID, "", step.events); err != nil {
			t.Fatal(err)
		}
		sessions, err := s.Online(t.Context(), SessionFilter{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for i, o := range sessions {
			if i > 0 {
				got += " "
			}
			got += fmt.Sprint(o.UserID, "@", o.IPAddress)
			if o.Node != "fra1" || o.NodeStatus != "offline" {
				t.Errorf("got %+v", o)
			}
		}
		if got != step.want {
			t.Errorf("online are %q, want %q", got, step.want)
		}
	}
	if err := s.RemoveNode(t.Context(), node.ID); err != nil {
		t.Fatal(err)
	}
	if sessions, err := s.Online(t.Context(), SessionFilter{Limit: 10}); err != nil || len(sessions) != 0 {
		t.Errorf("after the node: %v, %v", sessions, err)
	}
}
