package corestore

import (
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A row is flagged where its subscription has more than it can have moved over the node since its row
// before, whatever one minute can have. Every byte counts.
func TestImplausibleRowsAreFlagged(t *testing.T) {
	s := openStore(t)
	node, _, err := s.AddNode(t.Context(), "node", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Minute)
	if _, err := s.write.ExecContext(t.Context(), `UPDATE nodes SET created_at = ?`, millis(now.AddDate(0, 0, -30))); err != nil {
		t.Fatal(err)
	}
	subscription := int64(7)
	perMinute := plausible(time.Minute)
	for _, row := range []struct {
		name    string
		at      time.Time
		bytes   int64
		flagged bool
	}{
		{"the first row after weeks without Core", now.AddDate(0, 0, -15), 1000 * perMinute, false},
		{"a minute", now.AddDate(0, 0, -15).Add(time.Minute), perMinute, false},
		{"too much for a minute", now.AddDate(0, 0, -15).Add(2 * time.Minute), 2 * perMinute, true},
		{"the same after an hour", now.AddDate(0, 0, -15).Add(time.Hour), 2 * perMinute, false},
		{"too much for two weeks", now, 30 * 24 * 60 * perMinute, true},
		{"too much beside a row that came before", now, 3 * perMinute, true},
	} {
		entry := wire.UsageEntry{UserID: 1, SubscriptionID: &subscription, NodeProtocolID: 1, BytesUp: row.bytes - 1, BytesDown: 1, RecordedAt: row.at}
		strange, err := s.AddUsage(t.Context(), node.ID, "", []wire.UsageEntry{entry})
		if err != nil || strange > 0 {
			t.Fatalf("%s: %v, %d strange rows", row.name, err, strange)
		}
		all, err := s.Usage(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range all {
			if got.RecordedAt.Equal(row.at) && got.Flagged != row.flagged {
				t.Errorf("%s: flagged is %t", row.name, got.Flagged)
			}
		}
	}
	// Many small rows of one minute are one large one.
	small := make([]wire.UsageEntry, 4)
	for i := range small {
		small[i] = wire.UsageEntry{UserID: 1, SubscriptionID: &subscription, NodeProtocolID: int64(1 + i), BytesUp: perMinute / 2, RecordedAt: now.Add(time.Minute)}
	}
	if flagged, err := s.implausible(t.Context(), node.ID, small[:2]); err != nil || flagged[subscription] {
		t.Errorf("what is plausible together is flagged: %v", err)
	}
	if flagged, err := s.implausible(t.Context(), node.ID, append(small, small...)); err != nil || !flagged[subscription] {
		t.Errorf("many small rows are plausible: %v", err)
	}
}
