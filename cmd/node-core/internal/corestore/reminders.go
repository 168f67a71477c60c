package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// Reminders say when Core tells that a subscription's end or limit comes near, so that a shop or a bot
// can remind its user.
type Reminders struct {
	Before  time.Duration // the end; 0 for never
	Percent int64         // of the limit, 1 to 99; 0 for never
}

const (
	// remindEvery is how often Remind looks.
	remindEvery = time.Minute
	// remindersPerStep is how many events one transaction writes.
	remindersPerStep = 500
)

// Remind writes events for subscriptions whose end or limit comes near, until ctx ends. Each end is
// told once, and each limit once in a period, also by several instances and over restarts. A later end
// is told again, and a limit that was raised or a usage that was reset. failed gets an error, after
// which Remind goes on.
func (s *Store) Remind(ctx context.Context, r Reminders, failed func(error)) {
	for ctx.Err() == nil {
		if err := s.remindOnce(ctx, r, time.Now()); err != nil && ctx.Err() == nil {
			failed(err)
		}
		_ = sleep(ctx, remindEvery)
	}
}

func (s *Store) remindOnce(ctx context.Context, r Reminders, now time.Time) error {
	if r.Before > 0 {
		if err := s.inSteps(ctx, s.remindOfEnds(r.Before, now)); err != nil {
			return fmt.Errorf("tell which subscriptions end soon: %w", err)
		}
	}
	if r.Percent > 0 {
		if err := s.inSteps(ctx, s.forgetFar(r.Percent)); err != nil {
			return fmt.Errorf("look which limits are far again: %w", err)
		}
		if err := s.inSteps(ctx, s.remindOfLimits(r.Percent, now)); err != nil {
			return fmt.Errorf("tell which limits are near: %w", err)
		}
	}
	return nil
}

// usedBytes and limitOf are what a subscription has used of its period, and may use, in SQL. The part of
// a hundredth of the limit that a whole number loses is less than a hundred bytes.
var (
	usedBytes = `used_bytes`
	limitOf   = plus("limit_bytes", "extra_bytes")
)

// forgetFar finds subscriptions of which it was told that the limit is near, and is not any more.
func (s *Store) forgetFar(percent int64) reminder {
	due := `SELECT id FROM subscriptions WHERE told_near != 0 AND (limit_bytes = 0 OR ` + usedBytes + ` < ` + limitOf + ` / 100 * ?)`
	args := []any{percent}
	return reminder{due, args, func(ctx context.Context, tx *sql.Tx) (int, error) {
		result, err := tx.ExecContext(ctx, `UPDATE subscriptions SET told_near = 0 WHERE id IN (`+due+` LIMIT ?)`, append(args, remindersPerStep)...)
		if err != nil {
			return 0, err
		}
		n, err := result.RowsAffected()
		return int(n), err
	}}
}

// remindOfLimits finds subscriptions that have used a part of their limit. told_near is the period's
// beginning and one more, so that it is never 0.
func (s *Store) remindOfLimits(percent int64, now time.Time) reminder {
	due := `SELECT id FROM subscriptions WHERE limit_bytes > 0 AND status = 'active' AND told_near != period_start + 1 AND ` + usedBytes + ` >= ` + limitOf + ` / 100 * ?`
	args := []any{percent}
	return reminder{due, args, func(ctx context.Context, tx *sql.Tx) (int, error) {
		type near struct{ id, user, limit, used int64 }
		rows, err := tx.QueryContext(ctx, `UPDATE subscriptions SET told_near = period_start + 1 WHERE id IN (`+due+` LIMIT ?) RETURNING id, user_id, `+limitOf+`, `+usedBytes, append(args, remindersPerStep)...)
		all, err := collect(rows, err, func(r *sql.Rows) (n near, err error) { return n, r.Scan(&n.id, &n.user, &n.limit, &n.used) })
		if err != nil {
			return 0, err
		}
		for _, n := range all {
			if err := s.event(ctx, tx, Event{Kind: coreapi.EventSubscriptionLimitNear, At: now, UserID: n.user, SubscriptionID: n.id}, struct {
				LimitBytes int64 `json:"limitBytes"`
				UsedBytes  int64 `json:"usedBytes"`
			}{n.limit, n.used}); err != nil {
				return 0, err
			}
		}
		return len(all), nil
	}}
}

// reminder finds rows without a change, and then tells of some of them. It returns how many.
type reminder struct {
	due  string
	args []any
	tell func(ctx context.Context, tx *sql.Tx) (told int, err error)
}

// inSteps runs a reminder in short transactions. Where nothing is due, none is begun.
func (s *Store) inSteps(ctx context.Context, r reminder) error {
	var some bool
	if err := s.read.QueryRowContext(ctx, `SELECT EXISTS (`+r.due+`)`, r.args...).Scan(&some); err != nil || !some {
		return err
	}
	for told := remindersPerStep; told == remindersPerStep; {
		if err := s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
			told, err = r.tell(ctx, tx)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) remindOfEnds(before time.Duration, now time.Time) reminder {
	// With the condition of the index subscriptions_by_expiry.
	due := `SELECT id FROM subscriptions WHERE expires_at IS NOT NULL AND expired = 0 AND expires_at > ? AND expires_at <= ? AND told_end != expires_at AND status != 'disabled'`
	args := []any{millis(now), millis(now.Add(before))}
	return reminder{due, args, func(ctx context.Context, tx *sql.Tx) (int, error) {
		type end struct{ id, user, at int64 }
		rows, err := tx.QueryContext(ctx, `UPDATE subscriptions SET told_end = expires_at WHERE id IN (`+due+` LIMIT ?) RETURNING id, user_id, expires_at`, append(args, remindersPerStep)...)
		ends, err := collect(rows, err, func(r *sql.Rows) (e end, err error) { return e, r.Scan(&e.id, &e.user, &e.at) })
		if err != nil {
			return 0, err
		}
		for _, e := range ends {
			if err := s.event(ctx, tx, Event{Kind: coreapi.EventSubscriptionExpiring, At: now, UserID: e.user, SubscriptionID: e.id}, struct {
				ExpiresAt time.Time `json:"expiresAt"`
			}{time.UnixMilli(e.at).UTC()}); err != nil {
				return 0, err
			}
		}
		return len(ends), nil
	}}
}
