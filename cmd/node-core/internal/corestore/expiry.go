package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
)

// signal wakes one goroutine. Signals that come before it looks are one.
type signal chan struct{}

func (s signal) wake() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// longestSleep bounds how long Expire sleeps: another Core may have changed the database, or the
// clock was set.
const longestSleep = time.Minute

// Expire cuts off subscriptions when they expire, until ctx ends. changed gets the nodes whose
// revision was raised, after the commit. failed gets an error, after which Expire tries again
// in a while.
func (s *Store) Expire(ctx context.Context, changed func(nodes ...int64), failed func(error)) {
	for {
		sleep := longestSleep
		nodes, next, err := s.expireOnce(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failed(err)
		case !next.IsZero():
			sleep = min(sleep, max(time.Until(next), 0))
		}
		changed(nodes...)
		timer := time.NewTimer(sleep)
		select {
		case <-timer.C:
		case <-s.expiries: // an edit or a first use has set an end
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// expireOnce marks the subscriptions whose end is over as expired, and raises the revision of
// the nodes that served them. next is when the next one expires; the zero time for none.
func (s *Store) expireOnce(ctx context.Context, now time.Time) (nodes []int64, next time.Time, err error) {
	at, err := firstExpiry(ctx, s.read)
	if err != nil {
		return nil, next, fmt.Errorf("look for expired subscriptions: %w", err)
	}
	if at.Valid && at.Int64 <= millis(now) {
		err = s.inTransaction(ctx, func(tx *sql.Tx) error {
			rows, err := tx.QueryContext(ctx, `SELECT DISTINCT group_id FROM subscriptions WHERE expires_at <= ? AND expired = 0 AND status IN ('active', 'on_hold')`, millis(now))
			groups, err := collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET expired = 1 WHERE expires_at <= ? AND expired = 0`, millis(now)); err != nil {
				return err
			}
			if nodes, err = raiseReached(ctx, tx, groups...); err != nil {
				return err
			}
			at, err = firstExpiry(ctx, tx)
			return err
		})
		if err != nil {
			return nil, next, fmt.Errorf("cut off expired subscriptions: %w", err)
		}
	}
	if at.Valid {
		next = time.UnixMilli(at.Int64)
	}
	return nodes, next, nil
}

// firstExpiry returns when the next subscription expires.
func firstExpiry(ctx context.Context, db queryer) (at sql.NullInt64, err error) {
	return at, db.QueryRowContext(ctx, `SELECT min(expires_at) FROM subscriptions WHERE expires_at IS NOT NULL AND expired = 0`).Scan(&at)
}

// noteFirstUse begins the time of the subscriptions on hold that a batch of usage rows names.
func noteFirstUse(ctx context.Context, tx *sql.Tx, entries []wire.UsageEntry, now time.Time) error {
	var waiting bool // for nearly every batch, no subscription is
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM subscriptions WHERE status = 'on_hold')`).Scan(&waiting); err != nil || !waiting {
		return err
	}
	seen := map[int64]bool{}
	for _, e := range entries {
		if e.SubscriptionID == nil || seen[*e.SubscriptionID] || e.BytesUp == 0 && e.BytesDown == 0 {
			continue
		}
		seen[*e.SubscriptionID] = true
		if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET first_used_at = ?1, expires_at = ?1 + expires_after * 1000
			WHERE id = ?2 AND user_id = ?3 AND expires_after > 0 AND first_used_at IS NULL`, millis(now), *e.SubscriptionID, e.UserID); err != nil {
			return fmt.Errorf("note the first use of subscription %d: %w", *e.SubscriptionID, err)
		}
	}
	return nil
}
