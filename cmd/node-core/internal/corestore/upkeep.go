package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const (
	// idempotencyKeyLife is how long the key of a batch is kept. An agent tries to deliver a
	// batch for a month at most.
	idempotencyKeyLife = 60 * 24 * time.Hour
	// mostKeys is how many keys of one node are kept, the newest ones. An agent makes about four
	// a minute, 350,000 in 60 days, and tries a batch again before it sends the next but one.
	mostKeys = 1_000_000
	// answerLife is how long an Idempotency-Key of the admin API is known.
	answerLife = 24 * time.Hour
	// auditLife is how long the audit log goes back.
	auditLife = 400 * 24 * time.Hour
	// recordLife is how long session events and the nodes' errors are kept.
	recordLife = 90 * 24 * time.Hour
	// minuteRowsLife is how long usage has a row per minute. Older usage has a row per hour.
	minuteRowsLife = 45 * 24 * time.Hour
)

// Upkeep deletes rows that are older than they have to be kept and merges old usage rows into
// hours, which keeps all sums. Call it once a day; now is the current time. It works in short
// transactions, between which the nodes' batches are stored, and can be ended by ctx between
// any two of them. Where another instance is at it, Upkeep does nothing.
func (s *Store) Upkeep(ctx context.Context, now time.Time) error {
	return s.dialect.alone(ctx, s.write, func() error { return s.upkeep(ctx, now) })
}

func (s *Store) upkeep(ctx context.Context, now time.Time) error {
	for _, old := range []struct {
		table, statement string
		life             time.Duration
	}{
		{"idempotency_keys", `DELETE FROM idempotency_keys WHERE (node_id, route, key) IN
			(SELECT node_id, route, key FROM idempotency_keys WHERE created_at < ? LIMIT ?)`, idempotencyKeyLife},
		{"api_requests", `DELETE FROM api_requests WHERE (who, key) IN (SELECT who, key FROM api_requests WHERE created_at < ? LIMIT ?)`, answerLife},
		{"audit", `DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? LIMIT ?)`, auditLife},
		{"former_names", `DELETE FROM former_names WHERE (user_id, until) IN (SELECT user_id, until FROM former_names WHERE until < ? LIMIT ?)`, auditLife},
		{"session_events", `DELETE FROM session_events WHERE id IN (SELECT id FROM session_events WHERE occurred_at < ? LIMIT ?)`, recordLife},
		{"node_errors", `DELETE FROM node_errors WHERE id IN (SELECT id FROM node_errors WHERE at < ? LIMIT ?)`, recordLife},
	} {
		if err := s.deleteInSteps(ctx, old.statement, millis(now.Add(-old.life))); err != nil {
			return fmt.Errorf("delete old rows of %s: %w", old.table, err)
		}
	}
	if err := s.boundKeys(ctx, mostKeys); err != nil {
		return fmt.Errorf("delete idempotency keys of nodes with too many: %w", err)
	}
	if err := s.boundEvents(ctx, now.Add(-eventLife), mostEvents); err != nil {
		return fmt.Errorf("delete old events: %w", err)
	}
	if err := s.forgetClientChanges(ctx); err != nil {
		return err
	}
	before, err := s.dialect.rollUp(ctx, s.write, now)
	if err != nil {
		return fmt.Errorf("roll up usage: %w", err)
	}
	return s.mergeUsage(ctx, before)
}

const (
	hour = int64(time.Hour / time.Millisecond)
	// slice is how many milliseconds of usage one transaction merges.
	slice = 5 * int64(time.Minute/time.Millisecond)
	// pauseBetween is how long the write connection is left to the nodes between two
	// transactions.
	pauseBetween = 20 * time.Millisecond
	rowsPerStep  = 10_000 // that one transaction deletes
)

// boundKeys deletes the oldest keys of each node that has more than most. Keys of one
// millisecond go together, so that a few more may stay.
func (s *Store) boundKeys(ctx context.Context, most int) error {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id FROM idempotency_keys GROUP BY node_id HAVING count(*) > ?`, most)
	nodes, err := collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
	if err != nil {
		return err
	}
	for _, node := range nodes {
		var oldest int64 // of those that stay
		if err := s.read.QueryRowContext(ctx, `SELECT created_at FROM idempotency_keys WHERE node_id = ? ORDER BY created_at DESC LIMIT 1 OFFSET ?`,
			node, most-1).Scan(&oldest); err != nil {
			return err
		}
		if err := s.deleteInSteps(ctx, `DELETE FROM idempotency_keys WHERE (node_id, route, key) IN
			(SELECT node_id, route, key FROM idempotency_keys WHERE node_id = ? AND created_at < ? LIMIT ?)`, node, oldest); err != nil {
			return err
		}
	}
	return nil
}

// deleteInSteps runs the statement until it deletes less than rowsPerStep rows. Its last
// parameter is the number of rows; the others come before.
func (s *Store) deleteInSteps(ctx context.Context, statement string, parameters ...any) error {
	parameters = append(parameters, rowsPerStep)
	for {
		result, err := s.write.ExecContext(ctx, statement, parameters...)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n < rowsPerStep {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context) error { return sleep(ctx, pauseBetween) }

// sleep waits; it returns an error where ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mergeUsage merges the usage rows of each hour that ended before the time into one row per
// user, subscription and inbound.
func (s *Store) mergeUsage(ctx context.Context, before time.Time) error {
	end := millis(before) / hour * hour
	for from := int64(0); ; {
		var first sql.NullInt64
		if err := s.read.QueryRowContext(ctx, `SELECT min(recorded_at) FROM usage WHERE recorded_at >= ? AND recorded_at < ? AND recorded_at % ? != 0`,
			from, end, hour).Scan(&first); err != nil {
			return fmt.Errorf("merge usage: %w", err)
		}
		if !first.Valid {
			return nil
		}
		from = first.Int64 / slice * slice
		if err := s.inTransaction(ctx, func(tx *sql.Tx) error { return s.dialect.mergeSlice(ctx, tx, from/hour*hour, from, from+slice) }); err != nil {
			return fmt.Errorf("merge usage of %s: %w", time.UnixMilli(from).UTC().Format(time.RFC3339), err)
		}
		from += slice
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// mergeSlice adds the rows of the minutes from "from" until "until" (exclusive) to the rows of
// the minute "into", which is the first of their hour, and deletes them. All three are Unix
// milliseconds. A slice has five minutes, so that at most five rows become one: SQLite's sum
// fails over maxSum, and a row beyond an eighth of it is wrong already.
func (sqliteDialect) mergeSlice(ctx context.Context, tx *sql.Tx, into, from, until int64) error {
	if _, err := tx.ExecContext(ctx, `
		INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
		SELECT node_id, ?1, user_id, subscription_id, node_protocol_id, sum(min(bytes_up, ?4)), sum(min(bytes_down, ?4)), max(flagged)
		FROM usage WHERE recorded_at >= ?2 AND recorded_at < ?3 AND recorded_at != ?1 GROUP BY node_id, user_id, subscription_id, node_protocol_id `+addToUsage, into, from, until, int64(maxSum)/8); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM usage WHERE recorded_at >= ? AND recorded_at < ? AND recorded_at != ?`, from, until, into)
	return err
}
