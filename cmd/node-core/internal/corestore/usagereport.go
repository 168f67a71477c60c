package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
	"time"

	"nodeagent/coreapi"
)

// ReportQuery says what a report of usage sums up.
type ReportQuery struct {
	By       string    // one of ReportKinds
	Since    time.Time // the zero time for the beginning
	Until    time.Time // exclusive; the zero time for now and later
	Step     string    // one of ReportSteps; empty for one sum of all
	Location *time.Location
}

// ReportSteps are the lengths of the steps of a report.
var ReportSteps = []string{"minute", "hour", "day", "month"}

// reportKind is by what a report sums up.
type reportKind struct {
	id   string // the column of usage, with the table's name u
	join string // what the column needs beside usage
	name string // an expression for the name of the row g.id; removed names are r
	from string // the tables of that expression
}

var reportKinds = map[string]reportKind{
	"user":         {id: "u.user_id", name: "t.name", from: "LEFT JOIN users t ON t.id = g.id"},
	"subscription": {id: "u.subscription_id", name: "o.name", from: "LEFT JOIN subscriptions t ON t.id = g.id LEFT JOIN users o ON o.id = t.user_id"},
	"node":         {id: "u.node_id", name: "t.name", from: "LEFT JOIN nodes t ON t.id = g.id"},
	"protocol":     {id: "u.node_protocol_id", name: "o.name || '/' || t.tag", from: "LEFT JOIN node_protocols t ON t.id = g.id LEFT JOIN nodes o ON o.id = t.node_id"},
	"group":        {id: "coalesce(s.group_id, 0)", join: "LEFT JOIN subscriptions s ON s.id = u.subscription_id", name: "t.name", from: "LEFT JOIN access_groups t ON t.id = g.id"},
}

// ReportKinds are by what a report can sum up. A group has the subscriptions that are in it now.
var ReportKinds = []string{"user", "subscription", "node", "protocol", "group"}

// Check refuses a query that means nothing.
func (q ReportQuery) Check() error {
	switch {
	case !slices.Contains(ReportKinds, q.By):
		return fmt.Errorf("usage by %q is unknown: want one of %s", q.By, strings.Join(ReportKinds, ", "))
	case q.Step != "" && !slices.Contains(ReportSteps, q.Step):
		return fmt.Errorf("step %q is unknown: want one of %s", q.Step, strings.Join(ReportSteps, ", "))
	case !q.Until.IsZero() && q.Until.Before(q.Since):
		return fmt.Errorf("until %s is before since %s", q.Until.Format(time.RFC3339), q.Since.Format(time.RFC3339))
	}
	return nil
}

// stepOf returns the step of a report that has the time: its beginning, and its end, which is the
// beginning of the next one.
func (q ReportQuery) stepOf(at time.Time) (from, until time.Time) {
	at = at.In(q.Location)
	y, month, day := at.Date()
	switch q.Step {
	case "minute":
		from = at.Truncate(time.Minute) // zones differ from UTC by whole minutes
		return from, from.Add(time.Minute)
	case "hour":
		// Not by the calendar: an hour that the clock has twice are two steps.
		_, offset := at.Zone()
		shift := time.Duration(offset) * time.Second
		from = at.Add(shift).Truncate(time.Hour).Add(-shift)
		return from, from.Add(time.Hour)
	case "day":
		return firstInstant(y, month, day, q.Location), firstInstant(y, month, day+1, q.Location)
	case "month":
		return firstInstant(y, month, 1, q.Location), firstInstant(y, month+1, 1, q.Location)
	}
	return q.Since, q.Until
}

// firstInstant returns the beginning of a date. Some zones skip midnight when their summer time
// begins (America/Santiago, America/Havana): time.Date gives an hour before the date or after it
// then. Others have midnight twice when it ends, and it may give the second one.
func firstInstant(y int, month time.Month, day int, zone *time.Location) time.Time {
	at := time.Date(y, month, day, 0, 0, 0, 0, zone)
	date := time.Date(y, month, day, 0, 0, 0, 0, time.UTC) // normalised, as day 32 is
	isBefore := func(at time.Time) bool {
		y, month, day := at.Date()
		return time.Date(y, month, day, 0, 0, 0, 0, time.UTC).Before(date)
	}
	// Zones differ from UTC by whole minutes, and a clock jumps by a day at most (Pacific/Apia in
	// 2011): of the minutes around, it is the first that is not before the date.
	const around = 26 * 60
	begin := at.Add(-around * time.Minute)
	return begin.Add(time.Duration(sort.Search(2*around, func(n int) bool {
		return !isBefore(begin.Add(time.Duration(n) * time.Minute))
	})) * time.Minute)
}

// range of times in Unix milliseconds, the end is exclusive.
func (q ReportQuery) bounds() (from, until int64) {
	from, until = 0, int64(maxSum)
	if !q.Since.IsZero() {
		from = millis(q.Since)
	}
	if !q.Until.IsZero() {
		until = millis(q.Until)
	}
	return from, until
}

// Report returns the rows of a report, by their steps and ids. It reads one step at a time, and
// stops after an error.
func (s *Store) Report(ctx context.Context, q ReportQuery) iter.Seq2[coreapi.ReportRow, error] {
	return func(yield func(coreapi.ReportRow, error) bool) {
		from, until := q.bounds()
		for from < until {
			var first sql.NullInt64
			if err := s.read.QueryRowContext(ctx, `SELECT min(recorded_at) FROM usage WHERE recorded_at >= ? AND recorded_at < ?`, from, until).Scan(&first); err != nil {
				yield(coreapi.ReportRow{}, fmt.Errorf("find the usage of a report: %w", err))
				return
			}
			if !first.Valid {
				return
			}
			var at *time.Time
			end := until
			if q.Step != "" {
				begin, next := q.stepOf(time.UnixMilli(first.Int64))
				at, end = &begin, min(until, millis(next))
			}
			if end <= first.Int64 { // a zone that stepOf does not understand would give a report without an end
				yield(coreapi.ReportRow{}, fmt.Errorf("the %s of %s in %s ends before it begins: report in another zone", q.Step, time.UnixMilli(first.Int64).UTC().Format(time.RFC3339), q.Location))
				return
			}
			rows, err := s.reportStep(ctx, q.By, first.Int64, end)
			if err != nil {
				yield(coreapi.ReportRow{}, err)
				return
			}
			for _, row := range rows {
				row.Time = at
				if !yield(row, nil) {
					return
				}
			}
			from = end
		}
	}
}

// Sums are made of two parts, since a sum of bytes can be greater than the database can add up.
const (
	sumUnit  = 1_000_000_000
	sumParts = `CAST(sum(u.bytes_up / 1000000000) AS BIGINT), CAST(sum(u.bytes_up % 1000000000) AS BIGINT), CAST(sum(u.bytes_down / 1000000000) AS BIGINT), CAST(sum(u.bytes_down % 1000000000) AS BIGINT)`
)

// bytesOf puts the parts of a sum together; maxSum where that is too much.
func bytesOf(units, rest int64) int64 {
	if units >= maxSum/sumUnit {
		return maxSum
	}
	return added(units*sumUnit, rest)
}

// AddTraffic adds two sums. Each number stays at maxSum where that is too much.
func AddTraffic(a, b coreapi.Traffic) coreapi.Traffic {
	return coreapi.Traffic{BytesUp: added(a.BytesUp, b.BytesUp), BytesDown: added(a.BytesDown, b.BytesDown)}
}

// reportStep sums up the usage from a time until another one.
func (s *Store) reportStep(ctx context.Context, by string, from, until int64) ([]coreapi.ReportRow, error) {
	kind := reportKinds[by]
	rows, err := s.read.QueryContext(ctx, `SELECT g.id, coalesce(`+kind.name+`, r.name, ''), g.up, g.up_rest, g.down, g.down_rest FROM (
		SELECT `+kind.id+` AS id, `+named(sumParts, "up", "up_rest", "down", "down_rest")+` FROM usage u `+kind.join+`
			WHERE u.recorded_at >= ? AND u.recorded_at < ? GROUP BY `+kind.id+`) g
		`+kind.from+` LEFT JOIN removed_names r ON r.kind = ? AND r.id = g.id ORDER BY g.id`, from, until, by)
	all, err := collect(rows, err, func(r *sql.Rows) (row coreapi.ReportRow, err error) {
		var up, upRest, down, downRest int64
		err = r.Scan(&row.ID, &row.Name, &up, &upRest, &down, &downRest)
		row.BytesUp, row.BytesDown = bytesOf(up, upRest), bytesOf(down, downRest)
		return row, err
	})
	if err != nil {
		return nil, fmt.Errorf("sum up usage by %s: %w", by, err)
	}
	return all, nil
}

// named gives names to the columns of a list, which has no commas inside of them.
func named(columns string, names ...string) string {
	parts := strings.Split(columns, "), ")
	for i := range parts {
		if i < len(parts)-1 {
			parts[i] += ")"
		}
		parts[i] += " AS " + names[i]
	}
	return strings.Join(parts, ", ")
}

// ReportTotals sums up all usage of a report.
func (s *Store) ReportTotals(ctx context.Context, q ReportQuery) (t coreapi.Traffic, err error) {
	from, until := q.bounds()
	var up, upRest, down, downRest sql.NullInt64
	err = s.read.QueryRowContext(ctx, `SELECT `+sumParts+` FROM usage u WHERE u.recorded_at >= ? AND u.recorded_at < ?`, from, until).Scan(&up, &upRest, &down, &downRest)
	if err != nil {
		return t, fmt.Errorf("sum up usage: %w", err)
	}
	return coreapi.Traffic{BytesUp: bytesOf(up.Int64, upRest.Int64), BytesDown: bytesOf(down.Int64, downRest.Int64)}, nil
}
