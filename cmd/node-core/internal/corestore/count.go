package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"time"

	"nodeagent/coreclient/wire"
)

// chunks cuts the arguments of an IN into parts that one statement takes.
func chunks(ids []any) iter.Seq[[]any] { return slices.Chunk(ids, rowsPerStatement) }

// counting is how a node's usage rows count for limits.
type counting struct {
	multiplier int64 // thousandths
	// started has the beginnings of the periods that began after some of the rows, by
	// subscription.
	started map[int64]time.Time
}

// countingOf reads how the rows of a batch count.
func countingOf(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, now time.Time) (c counting, err error) {
	err = tx.QueryRowContext(ctx, `SELECT multiplier FROM nodes WHERE id = ?`, nodeID).Scan(&c.multiplier)
	if errors.Is(err, sql.ErrNoRows) { // the node was removed meanwhile
		c.multiplier, err = wholeByte, nil
	}
	if err != nil {
		return c, fmt.Errorf("read how much a byte counts: %w", err)
	}
	oldest := now
	for _, e := range entries {
		if e.RecordedAt.Before(oldest) {
			oldest = e.RecordedAt
		}
	}
	c.started, err = startedAfter(ctx, tx, oldest, entries)
	return c, err
}

// startedAfter returns the beginnings of periods that began after the time, of subscriptions that
// the rows name. For nearly every batch there are none.
func startedAfter(ctx context.Context, tx *sql.Tx, oldest time.Time, entries []wire.UsageEntry) (map[int64]time.Time, error) {
	const after = `FROM subscriptions WHERE period_start > 0 AND period_start > ?`
	var some bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 `+after+`)`, millis(oldest)).Scan(&some); err != nil || !some {
		return nil, err
	}
	started := map[int64]time.Time{}
	for ids := range chunks(subscriptionsOf(entries)) {
		rows, err := tx.QueryContext(ctx, `SELECT id, period_start `+after+` AND id IN `+placeholders(len(ids), 1), append([]any{millis(oldest)}, ids...)...)
		if _, err := collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var id, start int64
			err := r.Scan(&id, &start)
			started[id] = time.UnixMilli(start)
			return struct{}{}, err
		}); err != nil {
			return nil, fmt.Errorf("read the beginnings of periods: %w", err)
		}
	}
	return started, nil
}

// subscriptionsOf returns the ids that the rows name, each once, in order.
func subscriptionsOf(entries []wire.UsageEntry) []any {
	ids := make([]int64, 0, len(entries))
	for _, e := range entries {
		if e.SubscriptionID != nil {
			ids = append(ids, *e.SubscriptionID)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	return args
}

// counts reports whether a row counts for the period that its subscription is in: whether its
// minute is not over before the period begins. A row that comes late counts for no period that
// has begun since. Where the clock was set back, so that the period begins in the future, all rows
// count that are not older than now.
func (c counting) counts(e wire.UsageEntry, now time.Time) bool {
	start, is := c.started[subscriptionID(e)]
	if !is {
		return true
	}
	if start.After(now) {
		start = now
	}
	return !e.RecordedAt.Before(start.Truncate(time.Minute))
}

// wholeByte is the multiplier of a node whose bytes count once, in thousandths.
const wholeByte = 1000

// weighed returns how much bytes count with a multiplier in thousandths: whole bytes, and the
// thousandths of a byte beside them. Nothing is rounded: a subscription keeps the thousandths, and
// they become a byte with those of later rows. What a limit sees is the whole bytes, which is the
// exact sum rounded down.
func weighed(bytes, multiplier int64) (whole, rest int64) {
	high, low := bits.Mul64(uint64(bytes), uint64(multiplier))
	if high >= wholeByte {
		return maxSum, 0
	}
	w, r := bits.Div64(high, low, wholeByte)
	if w > maxSum {
		return maxSum, 0
	}
	return int64(w), int64(r)
}
