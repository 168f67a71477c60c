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
	user, err := s.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := s.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	subscription := sub.ID
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
		entry := wire.UsageEntry{UserID: user.ID, SubscriptionID: &subscription, NodeProtocolID: 1, BytesUp: row.bytes - 1, BytesDown: 1, RecordedAt: row.at}
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
	looksForLittle(t, s, node.ID, subscription, now)
}

// A node that names more than all the time can have, or what it does not serve, makes Core read no rows; and
// for the rest Core reads the rows of the time that the bytes need. The node's last row is of now.
func looksForLittle(t *testing.T, s *Store, node, subscription int64, now time.Time) {
	t.Helper()
	none, perMinute := int64(7), plausible(time.Minute)
	large := []wire.UsageEntry{
		{SubscriptionID: &subscription, BytesUp: plausible(farPast) + 1, RecordedAt: now.Add(2 * farPast)},
		{SubscriptionID: &none, BytesUp: perMinute + 1, RecordedAt: now.Add(farPast)},
	}
	if flagged, err := s.implausible(t.Context(), node, large); err != nil || !flagged[subscription] || !flagged[none] {
		t.Errorf("the node may send anything: %v, %v", flagged, err)
	}
	if flagged, err := s.implausible(t.Context(), node+1, large); err != nil || len(flagged) > 0 {
		t.Errorf("late rows of a node that was removed: %v, %v", flagged, err)
	}
	for late, has := range map[time.Duration]bool{0: true, time.Millisecond: false} {
		last, err := s.lastRows(t.Context(), node, []any{subscription}, batchOf{2 * perMinute, now.Add(2*time.Minute + late)}.from())
		if err != nil || (last[subscription] == millis(now)) != has || len(last) > 0 != has {
			t.Errorf("%s later the last rows are %v: %v", late, last, err)
		}
	}
}
