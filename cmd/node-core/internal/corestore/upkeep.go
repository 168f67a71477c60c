package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const (
	// keyLife is how long a batch's key is kept: longer than an agent goes on
	// trying, which is a month.
	keyLife = 60 * 24 * time.Hour
	// recordLife is how long session events and nodes' errors are kept.
	recordLife = 90 * 24 * time.Hour
	// minutesLife is how long usage is kept by the minute; then it is kept by the hour.
	minutesLife = 45 * 24 * time.Hour
)

// Upkeep forgets what nobody needs any more, and merges old usage rows to hours: their
// sums stay. It is for once a day.
func (s *Store) Upkeep(ctx context.Context, now time.Time) error {
	for _, old := range []struct {
		statement string
		before    time.Time
	}{
		{`DELETE FROM idempotency_keys WHERE created_at < ?`, now.Add(-keyLife)},
		{`DELETE FROM session_events WHERE occurred_at < ?`, now.Add(-recordLife)},
		{`DELETE FROM node_errors WHERE at < ?`, now.Add(-recordLife)},
	} {
		if _, err := s.write.ExecContext(ctx, old.statement, millis(old.before)); err != nil {
			return fmt.Errorf("forget old rows: %w", err)
		}
	}
	return s.mergeUsage(ctx, now.Add(-minutesLife))
}

const hour = int64(time.Hour / time.Millisecond)

// mergeUsage merges the rows before a time to hours, one hour a transaction.
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
		from = first.Int64 / hour * hour
		if err := s.change(ctx, func(tx *sql.Tx) error { return mergeHour(ctx, tx, from) }); err != nil {
			return fmt.Errorf("merge usage of %s: %w", time.UnixMilli(from).UTC().Format(time.RFC3339), err)
		}
		from += hour
	}
}

// mergeHour adds the rows inside an hour to those of its first minute.
func mergeHour(ctx context.Context, tx *sql.Tx, from int64) error {
	if _, err := tx.ExecContext(ctx, `
		INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
		SELECT node_id, ?1, user_id, subscription_id, node_protocol_id, sum(bytes_up), sum(bytes_down), max(flagged)
		FROM usage WHERE recorded_at > ?1 AND recorded_at < ?2 GROUP BY node_id, user_id, subscription_id, node_protocol_id
		ON CONFLICT DO UPDATE SET bytes_up = bytes_up + excluded.bytes_up, bytes_down = bytes_down + excluded.bytes_down,
			flagged = max(flagged, excluded.flagged)`, from, from+hour); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM usage WHERE recorded_at > ? AND recorded_at < ?`, from, from+hour)
	return err
}
