package corestore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// Old days are exchanged for rows per hour and dropped, whole months for one partition, and the
// sums of each user stay, over every border.
func TestDaysAreRolledUp(t *testing.T) {
	s, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	start := time.Date(2026, 1, 30, 0, 0, 0, 0, time.UTC)
	if err := makeDays(t.Context(), s.write, start.Add(minuteRowsLife)); err != nil {
		t.Fatal(err)
	}
	names := func() (names []string) {
		t.Helper()
		all, err := partitions(t.Context(), s.read)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if p.start.Before(start.AddDate(0, 3, 0)) {
				names = append(names, p.name)
			}
		}
		return names
	}
	type key struct {
		user int64
		hour string
	}
	want := map[key]int64{}
	add := func(at time.Time, bytes int64) {
		t.Helper()
		var entries []wire.UsageEntry
		for user := range int64(2) {
			entries = append(entries, wire.UsageEntry{UserID: user + 1, NodeProtocolID: 7, BytesUp: bytes, BytesDown: 2 * bytes, RecordedAt: at})
			want[key{user + 1, at.Truncate(time.Hour).Format(time.RFC3339)}] += bytes
		}
		if _, err := s.AddUsage(t.Context(), 1, "", entries); err != nil {
			t.Fatal(err)
		}
	}
	last := start.AddDate(0, 0, 40)
	for at := start; at.Before(last); at = at.Add(7*time.Hour + 59*time.Minute) {
		add(at, 100)
		add(at.Add(time.Minute), 10)
	}
	add(start.AddDate(0, 0, 1).Add(-time.Minute), 1) // the last minute of a day, and of a month below
	add(time.Date(2026, 1, 31, 23, 59, 0, 0, time.UTC), 1)
	add(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), 1)
	check := func(before time.Time) {
		t.Helper()
		rows, err := s.Usage(t.Context(), 100_000)
		if err != nil {
			t.Fatal(err)
		}
		have := map[key]int64{}
		for _, r := range rows {
			have[key{r.UserID, r.RecordedAt.Truncate(time.Hour).Format(time.RFC3339)}] += r.BytesUp
			if r.BytesDown != 2*r.BytesUp {
				t.Errorf("a row has %d bytes up and %d down", r.BytesUp, r.BytesDown)
			}
			if r.RecordedAt.Before(before) && r.RecordedAt != r.RecordedAt.Truncate(time.Hour) {
				t.Errorf("a row of %s is left", r.RecordedAt)
			}
		}
		for k, bytes := range want {
			if have[k] != bytes {
				t.Errorf("user %d has %d bytes in the hour %s, want %d", k.user, have[k], k.hour, bytes)
			}
		}
		if len(have) != len(want) {
			t.Errorf("%d hours of users, want %d", len(have), len(want))
		}
	}
	upkeep := func(before time.Time) {
		t.Helper()
		for range 2 { // the second run changes nothing
			if err := s.Upkeep(t.Context(), before.Add(minuteRowsLife+time.Hour)); err != nil {
				t.Fatal(err)
			}
			check(before)
		}
	}
	upkeep(time.Date(2026, 2, 20, 0, 0, 0, 0, time.UTC))
	got := names()
	if !slices.Contains(got, "usage_202601_hours") || !slices.Contains(got, "usage_20260219_hours") || !slices.Contains(got, "usage_20260220") || strings.Contains(fmt.Sprint(got), "usage_202601_hours usage_20260131") {
		t.Errorf("partitions %v", got)
	}
	add(time.Date(2026, 2, 3, 4, 5, 0, 0, time.UTC), 1) // rows that come late
	add(time.Date(2026, 1, 30, 4, 5, 0, 0, time.UTC), 1)
	add(time.Date(2025, 1, 30, 4, 5, 0, 0, time.UTC), 1)
	upkeep(time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC))
	if got := names(); !slices.Equal(got[:2], []string{"usage_202601_hours", "usage_202602_hours"}) || got[2] != "usage_20260301_hours" {
		t.Errorf("partitions %v", got)
	}
	// A sum over what a counter can have stays at the greatest one.
	add(last.Add(time.Hour), maxSum/3)
	add(last.Add(time.Hour+time.Minute), maxSum/3)
	add(last.Add(time.Hour+2*time.Minute), maxSum/3)
	add(last.Add(time.Hour+3*time.Minute), maxSum/3)
	if err := s.Upkeep(t.Context(), last.AddDate(0, 0, 3).Add(minuteRowsLife)); err != nil {
		t.Error(err)
	}
}

// Batches come while days are exchanged: no row is lost or doubled, and none is refused.
func TestBatchesBesideTheRollUp(t *testing.T) {
	s, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	begin := day(time.Now()).AddDate(0, 0, -20)
	ended := make(chan error, 1)
	total := int64(0)
	go func() {
		for n := range 200 {
			// Some are for the days that are exchanged at the moment.
			e := wire.UsageEntry{UserID: 1, NodeProtocolID: 7, BytesUp: 1, RecordedAt: begin.Add(time.Duration(n*97) * time.Minute)}
			if _, err := s.AddUsage(t.Context(), int64(n%3+1), fmt.Sprint(n), []wire.UsageEntry{e}); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for n := range 18 {
		if err := s.Upkeep(t.Context(), begin.AddDate(0, 0, n+1).Add(minuteRowsLife)); err != nil {
			t.Error(err)
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	rows, err := s.Usage(t.Context(), 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		total += r.BytesUp
	}
	if total != 200 {
		t.Errorf("the rows have %d bytes, want 200", total)
	}
}
