package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/wait"
)

// signal wakes one goroutine. Signals that come before it looks are one.
type signal chan struct{}

func (s signal) wake() {
	select {
	case s <- struct{}{}:
	default:
	}
}

const (
	// longestSleep bounds how long Enforce sleeps: another Core may have changed the database.
	longestSleep = time.Minute
	// documentEvery is how often a node gets another document because of limits. A change waits so
	// long where the node has just got one: many subscriptions can reach their limits in a minute.
	documentEvery = time.Second
	// rowsPerTurn is how many subscriptions one transaction changes that are due.
	rowsPerTurn = 1000
)

// Enforce makes limits hold until ctx ends: it ends subscriptions and periods on time, and gives
// nodes the documents that status changes need, also those that the nodes' usage rows have
// made. It sleeps until something is due, and notices within a second that the clock was set. changed gets the nodes whose revision was raised, after
// the commit. failed gets an error, after which Enforce tries again in a while.
//
// Several instances may run it on one PostgreSQL: each step is a transaction of inTransaction, so
// that the second instance finds nothing left to do.
func (s *Store) Enforce(ctx context.Context, changed func(nodes ...int64), failed func(error)) {
	for {
		nodes, next, err := s.enforceOnce(ctx, s.clock())
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failed(err)
		}
		if err != nil || next.IsZero() {
			next = s.clock().Add(longestSleep)
		}
		changed(nodes...)
		// An edit or a usage row that has made something due wakes it.
		if !wait.Until(ctx, s.clock, next, longestSleep, s.enforcing) {
			return
		}
	}
}

// enforceOnce does what is due at the time. It returns the nodes whose revision it has raised, and
// when something is due next; the zero time for never. A step that fails stops no other one: its
// error is a part of the one that is returned.
func (s *Store) enforceOnce(ctx context.Context, now time.Time) (nodes []int64, next time.Time, err error) {
	var failed []error
	for _, step := range []struct {
		what string
		due  string
		do   func(context.Context, *sql.Tx, time.Time) (more bool, err error)
	}{
		{"begin the lives of subscriptions on hold", firstLastStart, s.startLives},
		{"end subscriptions", firstExpiry, s.expire},
		{"begin periods", firstPeriodEnd, s.turnPeriods},
		{"begin budgets", firstBudgetEnd, s.turnBudgets},
		{"divide what is left of limits", firstGrantDue, s.divideGrants},
	} {
		if err := s.doDue(ctx, step.due, now, step.do); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", step.what, err))
		}
	}
	if nodes, err = s.raiseDue(ctx, now); err != nil {
		nodes, failed = nil, append(failed, fmt.Errorf("raise the revisions of nodes: %w", err))
	}
	if next, err = s.nextDue(ctx); err != nil {
		failed = append(failed, fmt.Errorf("find what is due next: %w", err))
	}
	return nodes, next, errors.Join(failed...)
}

// Each of these says when the next row is due that its step changes.
const (
	firstLastStart = `SELECT min(starts_by) AS at FROM subscriptions WHERE starts_by IS NOT NULL AND first_used_at IS NULL AND expires_after > 0`
	firstExpiry    = `SELECT min(expires_at) AS at FROM subscriptions WHERE expires_at IS NOT NULL AND expired = 0`
	firstPeriodEnd = `SELECT min(period_ends) AS at FROM subscriptions WHERE period_ends IS NOT NULL`
	firstBudgetEnd = `SELECT min(ends_at) AS at FROM node_budgets`
	firstGrantDue  = `SELECT min(due_at) AS at FROM grants`
)

// doDue runs a step in transactions until it has done all that is due.
func (s *Store) doDue(ctx context.Context, query string, now time.Time, do func(context.Context, *sql.Tx, time.Time) (bool, error)) error {
	for more := true; more; {
		var at sql.NullInt64
		if err := s.read.QueryRowContext(ctx, query).Scan(&at); err != nil || !at.Valid || at.Int64 > millis(now) {
			return err
		}
		if err := s.inEdit(ctx, func(tx *sql.Tx) (err error) {
			more, err = do(ctx, tx, now)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// nextDue returns when something is due next; the zero time for never.
func (s *Store) nextDue(ctx context.Context) (next time.Time, err error) {
	var at sql.NullInt64
	err = s.read.QueryRowContext(ctx, `SELECT min(at) FROM (`+firstLastStart+` UNION ALL `+firstExpiry+` UNION ALL `+firstPeriodEnd+` UNION ALL `+firstBudgetEnd+` UNION ALL `+firstGrantDue+`
		UNION ALL SELECT min(`+wanted+`) + ? FROM nodes JOIN due_nodes d ON d.node_id = nodes.id) moments`, documentEvery.Milliseconds()).Scan(&at)
	if err != nil || !at.Valid {
		return next, err
	}
	return time.UnixMilli(at.Int64), nil
}

// expire ends subscriptions whose end is over, rowsPerTurn of them.
func (s *Store) expire(ctx context.Context, tx *sql.Tx, now time.Time) (more bool, err error) {
	rows, err := tx.QueryContext(ctx, `UPDATE subscriptions SET expired = 1 WHERE id IN
		(SELECT id FROM subscriptions WHERE expires_at <= ? AND expired = 0 LIMIT ?) RETURNING id, group_id, status, limited`, millis(now), rowsPerTurn)
	ended, err := collect(rows, err, func(r *sql.Rows) (c statusChange, err error) {
		var limited bool
		err = r.Scan(&c.subscription, &c.group, &c.to, &limited)
		c.from = Active
		switch {
		case c.to == Disabled:
			c.from = Disabled
		case limited:
			c.from = Limited
		}
		return c, err
	})
	if err != nil {
		return false, err
	}
	return len(ended) == rowsPerTurn, s.noteStatuses(ctx, tx, ended)
}

// startLives begins the lives of the subscriptions on hold whose last moment for that is over.
func (s *Store) startLives(ctx context.Context, tx *sql.Tx, now time.Time) (more bool, err error) {
	_, err = tx.ExecContext(ctx, `UPDATE subscriptions SET first_used_at = starts_by, expires_at = starts_by + expires_after * 1000
		WHERE starts_by <= ? AND first_used_at IS NULL AND expires_after > 0`, millis(now))
	return false, err
}

// noteFirstUse begins the lives of the subscriptions on hold that a batch of usage rows names, with
// the first minute of which there is a row with bytes. begun says that there was one.
func noteFirstUse(ctx context.Context, tx *sql.Tx, entries []wire.UsageEntry, now time.Time) (begun bool, err error) {
	var waiting bool // for nearly every batch, no subscription is
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM subscriptions WHERE status = 'on_hold')`).Scan(&waiting); err != nil || !waiting {
		return false, err
	}
	first := map[subscriptionOf]time.Time{}
	for _, e := range entries {
		if e.SubscriptionID == nil || e.BytesUp == 0 && e.BytesDown == 0 {
			continue
		}
		at := e.RecordedAt
		if at.After(now) || isFlagged(e, now) {
			at = now
		}
		of := subscriptionOf{*e.SubscriptionID, e.UserID}
		if before, is := first[of]; !is || at.Before(before) {
			first[of] = at
		}
	}
	for of, at := range first {
		result, err := tx.ExecContext(ctx, `UPDATE subscriptions SET first_used_at = max(?1, created_at), expires_at = max(?1, created_at) + expires_after * 1000
			WHERE id = ?2 AND user_id = ?3 AND expires_after > 0 AND first_used_at IS NULL`, millis(at), of.id, of.user)
		if err != nil {
			return false, fmt.Errorf("note the first use of subscription %d: %w", of.id, err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			return false, err
		}
		begun = begun || n > 0
	}
	return begun, nil
}
