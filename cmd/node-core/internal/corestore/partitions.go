package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"nodeagent/cmd/node-core/internal/corestore/pgsql"
)

// On PostgreSQL the table usage has a partition for each day, in UTC. Once a day is older than
// rows per minute are kept, a partition with a row per hour takes its place, and the day's is
// dropped, which gives the room back at once and leaves no dead rows. Once all days of a month are
// such, one partition of the month takes their place. usage_other has rows of other days: of
// nodes whose clock is wrong.
//
//	usage_20270131         rows per minute of a day
//	usage_20270131_hours   rows per hour of a day
//	usage_202701_hours     rows per hour of a month
var partitionName = regexp.MustCompile(`^usage_([0-9]{6}|[0-9]{8})(_hours)?$`)

const (
	// daysAhead is how many days have partitions before they begin. Upkeep runs once a day.
	daysAhead = 7
	// swapLock bounds how long batches may wait for a partition that is exchanged: for that a
	// lock is tried so long, and given up.
	swapLock  = 50 * time.Millisecond
	swapTries = 40
)

type partition struct {
	name       string
	start, end time.Time
	hours      bool // it has a row per hour
}

// partitionOf reads a partition's name.
func partitionOf(name string) (p partition, ok bool) {
	parts := partitionName.FindStringSubmatch(name)
	if parts == nil {
		return p, false
	}
	layout, days, months := "20060102", 1, 0
	if len(parts[1]) == len("200601") {
		layout, days, months = "200601", 0, 1
	}
	start, err := time.Parse(layout, parts[1])
	return partition{name: name, start: start, end: start.AddDate(0, months, days), hours: parts[2] != ""}, err == nil
}

func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// partitions returns those that have a name of a day or a month, by time.
func partitions(ctx context.Context, db querier) ([]partition, error) {
	rows, err := db.QueryContext(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'usage'::regclass`)
	names, err := collect(rows, err, func(r *sql.Rows) (name string, err error) { return name, r.Scan(&name) })
	if err != nil {
		return nil, fmt.Errorf("read the partitions of usage: %w", err)
	}
	var all []partition
	for _, name := range names {
		if p, ok := partitionOf(name); ok {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b partition) int { return a.start.Compare(b.start) })
	return all, nil
}

// makeDays makes the partitions of the days that rows can be of: from the oldest that has a row
// per minute until daysAhead.
func makeDays(ctx context.Context, db *sql.DB, now time.Time) error {
	all, err := partitions(ctx, db)
	if err != nil {
		return err
	}
	var missing []partition
	for d := day(now.Add(-minuteRowsLife)); d.Before(now.AddDate(0, 0, daysAhead)); d = d.AddDate(0, 0, 1) {
		missing = append(missing, partition{name: "usage_" + d.Format("20060102"), start: d, end: d.AddDate(0, 0, 1)})
	}
	return makeMissing(ctx, db, all, missing)
}

// makeMonths makes the partitions of all months and days between the oldest row and the days that
// have rows per minute.
func makeMonths(ctx context.Context, db *sql.DB, oldest, now time.Time) error {
	all, err := partitions(ctx, db)
	if err != nil {
		return err
	}
	var missing []partition
	oldest = oldest.UTC()
	first := day(now.Add(-minuteRowsLife))
	for at := time.Date(oldest.Year(), oldest.Month(), 1, 0, 0, 0, 0, time.UTC); at.Before(first); {
		p := partition{name: "usage_" + at.Format("200601") + "_hours", start: at, end: at.AddDate(0, 1, 0)}
		if p.end.After(first) {
			p = partition{name: "usage_" + at.Format("20060102") + "_hours", start: at, end: at.AddDate(0, 0, 1)}
		}
		missing = append(missing, p)
		at = p.end
	}
	return makeMissing(ctx, db, all, missing)
}

// makeMissing makes the partitions whose time no other one has.
func makeMissing(ctx context.Context, db *sql.DB, all, wanted []partition) error {
	wanted = slices.DeleteFunc(wanted, func(w partition) bool {
		return slices.ContainsFunc(all, func(p partition) bool { return p.start.Before(w.end) && p.end.After(w.start) })
	})
	if len(wanted) == 0 {
		return nil
	}
	err := swapping(ctx, db, func(tx *sql.Tx) error {
		for _, p := range wanted {
			var early bool // rows that are in usage_other stay there
			if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM usage_other WHERE recorded_at >= ? AND recorded_at < ?)`, millis(p.start), millis(p.end)).Scan(&early); err != nil {
				return err
			}
			if early {
				continue
			}
			if _, err := tx.ExecContext(ctx, fmt.Sprintf(`CREATE TABLE %s PARTITION OF usage FOR VALUES FROM (%d) TO (%d)`, p.name, millis(p.start), millis(p.end))); err != nil {
				return fmt.Errorf("partition %s: %w", p.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make partitions of usage: %w", err)
	}
	return nil
}

// swapping runs f in a transaction that gives up a lock after swapLock, and tries again.
func swapping(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	once := func() error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		defer tx.Rollback() //nolint:errcheck // does nothing after a commit
		if _, err := tx.ExecContext(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d`, swapLock.Milliseconds())); err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return err
		}
		return tx.Commit()
	}
	for try := 1; ; try++ {
		err := once()
		if err == nil || try == swapTries || !pgsql.IsLockTimeout(err) && !pgsql.IsConflict(err) {
			return err
		}
		if err := sleep(ctx, pauseBetween); err != nil {
			return err
		}
	}
}

// rollUp exchanges the partitions of days that end before the time, and of months all of whose
// days are exchanged.
func rollUp(ctx context.Context, db *sql.DB, before time.Time) error {
	all, err := partitions(ctx, db)
	if err != nil {
		return err
	}
	months := map[time.Time][]partition{}
	for _, p := range all {
		if p.end.After(before) {
			continue
		}
		if !p.hours {
			if p, err = exchange(ctx, db, p.start, p.end, p.name+"_hours", p); err != nil {
				return err
			}
		}
		month := time.Date(p.start.Year(), p.start.Month(), 1, 0, 0, 0, 0, time.UTC)
		months[month] = append(months[month], p)
	}
	for month, days := range months {
		end := month.AddDate(0, 1, 0)
		if end.After(before) || len(days) == 1 && days[0].end.Equal(end) && days[0].start.Equal(month) {
			continue
		}
		// A day whose rows were in usage_other has no partition: the month can't get one either.
		if !adjacent(days, month, end) {
			continue
		}
		if _, err := exchange(ctx, db, month, end, "usage_"+month.Format("200601")+"_hours", days...); err != nil {
			return err
		}
	}
	return nil
}

// adjacent reports whether the partitions cover the time without a gap; those of the first
// month may begin later.
func adjacent(days []partition, month, end time.Time) bool {
	at := month
	for _, p := range days {
		if !p.start.Equal(at) && p.start != days[0].start {
			return false
		}
		at = p.end
	}
	return at.Equal(end)
}

// exchange puts a partition with a row per hour in the place of others, which it drops.
func exchange(ctx context.Context, db *sql.DB, start, end time.Time, name string, from ...partition) (partition, error) {
	err := swapping(ctx, db, func(tx *sql.Tx) error {
		// The columns of the parent with its checks and indexes. The check spares ATTACH a look
		// at each row.
		statements := []string{
			fmt.Sprintf(`CREATE TABLE %s (LIKE usage INCLUDING DEFAULTS INCLUDING INDEXES)`, name),
			fmt.Sprintf(`ALTER TABLE %s ADD CONSTRAINT %s_bounds CHECK (recorded_at IS NOT NULL AND recorded_at >= %d AND recorded_at < %d)`, name, name, millis(start), millis(end)),
		}
		for _, p := range from {
			statements = append(statements,
				fmt.Sprintf(`LOCK TABLE %s IN SHARE MODE`, p.name), // a late row waits, or is in
				fmt.Sprintf(`INSERT INTO %s (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
					SELECT node_id, recorded_at / %d * %d, user_id, subscription_id, node_protocol_id, least(sum(bytes_up), %d), least(sum(bytes_down), %d), max(flagged)
					FROM %s GROUP BY 1, 2, 3, 4, 5`, name, hour, hour, int64(maxSum), int64(maxSum), p.name))
		}
		if err := execAll(ctx, tx, statements); err != nil {
			return err
		}
		if err := lockWhole(ctx, tx); err != nil {
			return err
		}
		// From here on batches wait, for a few milliseconds.
		statements = nil
		for _, p := range from {
			statements = append(statements, `DROP TABLE `+p.name)
		}
		return execAll(ctx, tx, append(statements,
			fmt.Sprintf(`ALTER TABLE usage ATTACH PARTITION %s FOR VALUES FROM (%d) TO (%d)`, name, millis(start), millis(end)),
			fmt.Sprintf(`ALTER TABLE %s DROP CONSTRAINT %s_bounds`, name, name)))
	})
	if err != nil {
		return partition{}, fmt.Errorf("put partition %s in the place of those with a row per minute: %w", name, err)
	}
	p, ok := partitionOf(name)
	if !ok {
		return p, errors.New("the partition " + name + " has no name of a day or month")
	}
	return p, nil
}

// lockWhole locks usage against readers and writers. A long report holds it up; then it gives up
// after swapTries.
func lockWhole(ctx context.Context, tx *sql.Tx) error {
	for try := 1; ; try++ {
		if _, err := tx.ExecContext(ctx, `SAVEPOINT before_lock`); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `LOCK TABLE usage IN ACCESS EXCLUSIVE MODE`)
		if err == nil || try == swapTries || !pgsql.IsLockTimeout(err) {
			return err
		}
		if _, err := tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT before_lock`); err != nil {
			return err
		}
		if err := sleep(ctx, pauseBetween); err != nil {
			return err
		}
	}
}

func execAll(ctx context.Context, tx *sql.Tx, statements []string) error {
	for _, statement := range statements {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
