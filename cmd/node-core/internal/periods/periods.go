// Package periods says when periods begin: at midnight of days, weeks and months in a time zone.
package periods

import (
	"time"
	_ "time/tzdata" // periods turn at the same time on a host without zones
)

// The kinds of periods.
const (
	None    = "none"
	Day     = "day"
	Week    = "week"  // from Monday on
	Month   = "month" // from the first on
	Rolling = "rolling-month"
)

// Period is a sequence of turns, each at the first moment of a day in a time zone.
type Period struct {
	Kind string // Day, Week, Month or Rolling; for any other there are no turns
	// Day is the day of the month on which a Rolling period turns, 1 to 31. In a month that
	// lacks the day, it turns on the last one.
	Day  int
	Zone *time.Location
}

// Of returns the period of a kind for something that has been there since a time: a Rolling
// period turns on that day of the month.
func Of(kind string, since time.Time, zone *time.Location) Period {
	return Period{Kind: kind, Day: since.In(zone).Day(), Zone: zone}
}

// Start returns the last turn that is not after the time; the zero time where there are none.
func (p Period) Start(at time.Time) time.Time { return p.turn(at, 0) }

// Next returns the first turn after the time; the zero time where there are none.
func (p Period) Next(at time.Time) time.Time {
	// A zone can skip a whole day (Pacific/Apia had no 2011-12-30): the turn of that day is the
	// one of the day after it.
	for n := 1; ; n++ {
		if t := p.turn(at, n); t.IsZero() || t.After(at) {
			return t
		}
	}
}

// turn returns the turn that is n after the last one that is not after the time.
func (p Period) turn(at time.Time, n int) time.Time {
	year, month, day := at.In(p.Zone).Date()
	switch p.Kind {
	case Day:
		return midnight(year, month, day+n, p.Zone)
	case Week:
		sinceMonday := (int(at.In(p.Zone).Weekday()) + 6) % 7
		return midnight(year, month, day-sinceMonday+7*n, p.Zone)
	case Month:
		return midnight(year, month+time.Month(n), 1, p.Zone)
	case Rolling:
		if p.dayIn(year, month) > day {
			n--
		}
		return midnight(year, month+time.Month(n), p.dayIn(year, month+time.Month(n)), p.Zone)
	}
	return time.Time{}
}

// dayIn returns the day on which a Rolling period turns in the month.
func (p Period) dayIn(year int, month time.Month) int {
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
	return min(p.Day, last)
}

// midnight returns the first moment of a day. time.Date does not say which moment it returns
// where the clock is turned at midnight.
func midnight(year int, month time.Month, day int, zone *time.Location) time.Time {
	t := time.Date(year, month, day, 0, 0, 0, 0, zone)
	want := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	if local := wall(t); local.Before(want) {
		// The clock jumps over midnight, and t is before the jump.
		_, jump := t.ZoneBounds()
		return jump
	} else if local.After(want) {
		jump, _ := t.ZoneBounds()
		return jump
	}
	since, _ := t.ZoneBounds()
	if since.IsZero() {
		return t
	}
	// The clock is set back over midnight, and t can be the second of the two.
	_, offset := t.Zone()
	_, before := since.Add(-time.Second).Zone()
	if first := t.Add(time.Duration(offset-before) * time.Second); first.Before(since) && first.Before(t) {
		return first
	}
	return t
}

// wall returns the time that a clock on the wall shows, as UTC.
func wall(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}
