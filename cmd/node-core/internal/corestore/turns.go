package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"nodeagent/cmd/node-core/internal/periods"
)

// Timezone returns the zone in which periods begin.
func (s *Store) Timezone() *time.Location { return s.zone.Load() }

// SetTimezone makes periods begin in another zone, from the next one on.
func (s *Store) SetTimezone(ctx context.Context, zone *time.Location) error {
	if s.Timezone().String() == zone.String() {
		return nil
	}
	defer s.enforcing.wake()
	err := s.inTransaction(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE core SET timezone = ?`, zone.String()); err != nil {
			return err
		}
		now := s.clock()
		rows, err := tx.QueryContext(ctx, `SELECT id, period, created_at FROM subscriptions WHERE period_ends > ?`, millis(now))
		if err := moveEnds(ctx, tx, rows, err, now, zone); err != nil {
			return err
		}
		return moveBudgets(ctx, tx, now, zone)
	})
	if err != nil {
		return fmt.Errorf("set the time zone %s: %w", zone, err)
	}
	s.zone.Store(zone)
	return nil
}

// moveEnds gives the periods of the rows (id, period, created_at) the end that they have in the zone.
func moveEnds(ctx context.Context, tx *sql.Tx, rows *sql.Rows, err error, now time.Time, zone *time.Location) error {
	ends := map[int64][]any{}
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id, created int64
		var kind string
		err := r.Scan(&id, &kind, &created)
		end := millis(periods.Of(kind, time.UnixMilli(created), zone).Next(now))
		ends[end] = append(ends[end], id)
		return struct{}{}, err
	})
	if err != nil {
		return err
	}
	for end, ids := range ends {
		for ids := range chunks(ids) {
			if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET period_ends = ? WHERE id IN `+placeholders(len(ids), 1), append([]any{end}, ids...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// turnPeriods begins the periods that are due, of rowsPerTurn subscriptions. It counts the bytes
// anew from the beginning of the period that the time is in, also where that was a while ago.
func (s *Store) turnPeriods(ctx context.Context, tx *sql.Tx, now time.Time) (more bool, err error) {
	// A batch of usage rows that is being stored counts for the periods that it has seen.
	if err := s.dialect.lockUsage(ctx, tx); err != nil {
		return false, err
	}
	type turn struct{ start, end int64 }
	turns := map[turn][]any{}
	var renewed []statusChange
	n := 0
	rows, err := tx.QueryContext(ctx, `SELECT id, group_id, period, created_at, status, expires_after > 0 AND first_used_at IS NULL
		FROM subscriptions WHERE period_ends <= ? LIMIT ?`, millis(now), rowsPerTurn)
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var c statusChange
		var kind string
		var created int64
		var holds bool
		err := r.Scan(&c.subscription, &c.group, &kind, &created, &c.from, &holds)
		p := periods.Of(kind, time.UnixMilli(created), s.Timezone())
		t := turn{millis(p.Start(now)), millis(p.Next(now))}
		turns[t] = append(turns[t], c.subscription)
		if c.to = Active; holds {
			c.to = OnHold
		}
		if c.from == Limited {
			renewed = append(renewed, c)
		}
		n++
		return struct{}{}, err
	})
	if err != nil {
		return false, err
	}
	for t, ids := range turns {
		for ids := range chunks(ids) {
			if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET period_start = ?, period_ends = ?, period_up = bytes_up, period_down = bytes_down,
				used_bytes = 0, used_rest = 0, extra_bytes = 0, limited = 0 WHERE id IN `+placeholders(len(ids), 1), append([]any{t.start, t.end}, ids...)...); err != nil {
				return false, err
			}
			if err := grantsDue(ctx, tx, ids); err != nil {
				return false, err
			}
		}
	}
	return n == rowsPerTurn, s.noteStatuses(ctx, tx, renewed)
}

// turnDue begins the periods and budgets that are due, before usage rows are counted for them.
func (s *Store) turnDue(ctx context.Context, now time.Time) error {
	if err := s.doDue(ctx, firstPeriodEnd, now, s.turnPeriods); err != nil {
		return fmt.Errorf("begin periods: %w", err)
	}
	if err := s.doDue(ctx, firstBudgetEnd, now, s.turnBudgets); err != nil {
		return fmt.Errorf("begin budgets: %w", err)
	}
	return nil
}
