package periods

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// Each row is a moment, the beginning of its period and that of the next one, in UTC.
func TestTurns(t *testing.T) {
	for _, c := range []struct {
		name, kind      string
		day             int
		zone            string
		at, start, next string
	}{
		{"a day in UTC", Day, 0, "UTC", "2027-01-31T18:00:00Z", "2027-01-31T00:00:00Z", "2027-02-01T00:00:00Z"},
		{"the first moment of a day", Day, 0, "UTC", "2027-01-31T00:00:00Z", "2027-01-31T00:00:00Z", "2027-02-01T00:00:00Z"},
		{"a day of 23 hours", Day, 0, "Europe/Berlin", "2027-03-28T12:00:00Z", "2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z"},
		{"a day of 25 hours", Day, 0, "Europe/Berlin", "2027-10-31T12:00:00Z", "2027-10-30T22:00:00Z", "2027-10-31T23:00:00Z"},
		{"a day without a midnight", Day, 0, "America/Santiago", "2024-09-08T12:00:00Z", "2024-09-08T04:00:00Z", "2024-09-09T03:00:00Z"},
		{"before a day without a midnight", Day, 0, "America/Santiago", "2024-09-08T03:59:59Z", "2024-09-07T04:00:00Z", "2024-09-08T04:00:00Z"},
		{"a day with two midnights", Day, 0, "America/Havana", "2024-11-03T12:00:00Z", "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z"},
		{"between the two midnights", Day, 0, "America/Havana", "2024-11-03T04:30:00Z", "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z"},
		{"an hour twice before midnight", Day, 0, "America/Santiago", "2024-04-07T03:30:00Z", "2024-04-06T03:00:00Z", "2024-04-07T04:00:00Z"},
		{"a day that the zone skips", Day, 0, "Pacific/Apia", "2011-12-30T09:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
		{"a week", Week, 0, "Asia/Tehran", "2027-01-31T18:00:00Z", "2027-01-24T20:30:00Z", "2027-01-31T20:30:00Z"},
		{"a month", Month, 0, "Asia/Tehran", "2027-01-31T18:00:00Z", "2026-12-31T20:30:00Z", "2027-01-31T20:30:00Z"},
		{"over the end of a year", Month, 0, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"a month that lacks the 31st", Rolling, 31, "UTC", "2027-01-31T18:00:00Z", "2027-01-31T00:00:00Z", "2027-02-28T00:00:00Z"},
		{"after a month that lacks it", Rolling, 31, "UTC", "2027-02-28T00:00:00Z", "2027-02-28T00:00:00Z", "2027-03-31T00:00:00Z"},
		{"the 30th in a leap year", Rolling, 30, "UTC", "2028-02-10T00:00:00Z", "2028-01-30T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"a day before it", Rolling, 15, "UTC", "2027-01-14T23:59:59Z", "2026-12-15T00:00:00Z", "2027-01-15T00:00:00Z"},
		{"none", None, 0, "UTC", "2027-01-14T23:59:59Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, c.at)
			if err != nil {
				t.Fatal(err)
			}
			p := Period{Kind: c.kind, Day: c.day, Zone: zone(t, c.zone)}
			if got := p.Start(at).UTC().Format(time.RFC3339); got != c.start {
				t.Errorf("it began at %s, want %s", got, c.start)
			}
			if got := p.Next(at).UTC().Format(time.RFC3339); got != c.next {
				t.Errorf("the next begins at %s, want %s", got, c.next)
			}
		})
	}
}

// Whatever the zone and the moment: periods follow on each other without a gap, and each begins
// at the first moment of a day.
func TestPeriodsFollowOnEachOther(t *testing.T) {
	zones := []*time.Location{time.UTC}
	for _, name := range []string{"Europe/Berlin", "America/Santiago", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Tehran", "Africa/Cairo"} {
		zones = append(zones, zone(t, name))
	}
	rapid.Check(t, func(t *rapid.T) {
		p := Period{
			Kind: rapid.SampledFrom([]string{Day, Week, Month, Rolling}).Draw(t, "kind"),
			Day:  rapid.IntRange(1, 31).Draw(t, "day"),
			Zone: rapid.SampledFrom(zones).Draw(t, "zone"),
		}
		at := time.Unix(rapid.Int64Range(1_000_000_000, 2_000_000_000).Draw(t, "at"), 0)
		start, next := p.Start(at), p.Next(at)
		if start.After(at) || !next.After(at) {
			t.Fatalf("%s is not in %s to %s", at, start, next)
		}
		if again := p.Start(next); !again.Equal(next) {
			t.Fatalf("the period that begins at %s begins at %s", next, again)
		}
		if before := p.Next(start.Add(-time.Second)); !before.Equal(start) {
			t.Fatalf("the period before %s ends at %s", start, before)
		}
		if day, before := start.In(p.Zone).Day(), start.Add(-time.Second).In(p.Zone).Day(); day == before {
			t.Fatalf("%s is not the first moment of its day", start)
		}
	})
}
