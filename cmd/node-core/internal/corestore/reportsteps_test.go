package corestore

import (
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// Days and months have no gap and no overlap, and each has the times of its date: also in zones
// whose summer time begins or ends at midnight, so that a date begins at one o'clock, or has
// midnight twice.
func TestReportStepsWhereMidnightIsSkipped(t *testing.T) {
	for _, zone := range []string{"America/Santiago", "America/Havana", "Atlantic/Azores", "America/Asuncion", "Africa/Cairo", "Asia/Beirut", "Australia/Lord_Howe"} {
		location, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for step, layout := range map[string]string{"day": "2006-01-02", "month": "2006-01"} {
			q := ReportQuery{Step: step, Location: location}
			begin := time.Date(2025, 12, 31, 12, 0, 0, 0, time.UTC)
			_, last := q.stepOf(begin)
			for at := begin; at.Before(begin.AddDate(1, 1, 0)); at = at.Add(15 * time.Minute) {
				from, next := q.stepOf(at)
				if at.Before(from) || !at.Before(next) {
					t.Fatalf("%s: the %s of %s is from %s to %s", zone, step, at.In(location), from, next)
				}
				if want := at.In(location).Format(layout); from.Format(layout) != want || next.Add(-time.Nanosecond).Format(layout) != want || from.Add(-time.Nanosecond).Format(layout) == want {
					t.Fatalf("%s: the %s %s is from %s to %s", zone, step, want, from, next)
				}
				if next.After(last) && !from.Equal(last) {
					t.Fatalf("%s: one %s ends at %s, and the next one begins at %s", zone, step, last, from)
				}
				last = next
			}
		}
	}
}

// A report by days over a year ends, its steps increase, and its rows are all that was stored.
func TestReportOfAYearWhereMidnightIsSkipped(t *testing.T) {
	s := openStore(t)
	begin := time.Date(2026, 1, 1, 0, 30, 0, 0, time.UTC)
	var entries []wire.UsageEntry
	for hour := range 365 * 24 {
		at := begin.Add(time.Duration(hour) * time.Hour)
		if at.Hour() < 8 { // around midnight west of UTC
			entries = append(entries, wire.UsageEntry{UserID: 1, NodeProtocolID: 1, BytesUp: int64(hour), RecordedAt: at})
		}
	}
	if _, err := s.AddUsage(t.Context(), 1, "", entries); err != nil {
		t.Fatal(err)
	}
	for _, zone := range []string{"America/Santiago", "America/Havana", "Atlantic/Azores"} {
		location, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		query := ReportQuery{By: "user", Step: "day", Location: location}
		total, err := s.ReportTotals(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		var last time.Time
		for row, err := range s.Report(t.Context(), query) {
			if err != nil {
				t.Fatal(err)
			}
			if !row.Time.After(last) {
				t.Fatalf("%s: the step %s comes after %s", zone, row.Time, last)
			}
			last, sum = *row.Time, sum+row.BytesUp
		}
		if sum != total.BytesUp {
			t.Errorf("%s: the rows have %d bytes, want %d", zone, sum, total.BytesUp)
		}
	}
}
