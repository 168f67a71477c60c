package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Plan is a template of subscriptions' terms. A subscription that is added with a plan gets a
// copy: a later edit of the plan concerns later subscriptions alone.
type Plan struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	Note string `json:"note"`
	Terms
	ExpiresAfterSeconds int64     `json:"expiresAfterSeconds"` // how long a subscription lives; 0 for ever
	FromFirstUse        bool      `json:"fromFirstUse"`        // its life begins with the first use, and not when it is added
	CreatedAt           time.Time `json:"createdAt"`           // UTC
}

// Subscription returns what a subscription gets that is added with the plan now.
func (p Plan) Subscription(now time.Time) Subscription {
	sub := Subscription{PlanID: p.ID, Terms: p.Terms}
	switch {
	case p.FromFirstUse:
		sub.ExpiresAfterSeconds = p.ExpiresAfterSeconds
	case p.ExpiresAfterSeconds > 0:
		sub.ExpiresAt = new(now.UTC().Add(time.Duration(p.ExpiresAfterSeconds) * time.Second))
	}
	return sub
}

func (p *Plan) settle() error {
	p.Terms = p.withDefaults()
	if p.ExpiresAfterSeconds < 0 {
		return fmt.Errorf("a life of %d seconds: want 0 for ever, or more", p.ExpiresAfterSeconds)
	}
	return p.Check()
}

// AddPlan adds a plan; ErrExists if another one has the name.
func (s *Store) AddPlan(ctx context.Context, p Plan) (Plan, error) {
	if err := p.settle(); err != nil {
		return p, err
	}
	err := s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
		if p.ID, err = nextID(ctx, tx, "plans"); err != nil {
			return err
		}
		p.CreatedAt = stored(time.Now())
		args := append([]any{p.ID, p.Name, p.Note, p.ExpiresAfterSeconds, p.FromFirstUse, millis(p.CreatedAt)}, p.values()...)
		added, err := tx.ExecContext(ctx, `INSERT INTO plans (id, name, note, expires_after, from_first_use, created_at, `+termColumns+`)
			VALUES `+placeholders(len(args), 1)+` ON CONFLICT DO NOTHING`, args...)
		if err != nil {
			return err
		}
		if n, err := added.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fmt.Errorf("plan %q: %w", p.Name, ErrExists)
	})
	return p, err
}

// EditPlan changes a plan and returns it. No subscription changes with it.
func (s *Store) EditPlan(ctx context.Context, nameOrID string, edit func(*Plan) error) (p Plan, err error) {
	return p, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if p, err = plan(ctx, tx, nameOrID); err != nil {
			return err
		}
		if err := edit(&p); err != nil {
			return err
		}
		if err := p.settle(); err != nil {
			return err
		}
		if err := nameIsFree(ctx, tx, "plans", p.Name, p.ID); err != nil {
			return fmt.Errorf("plan %q: %w", p.Name, err)
		}
		args := append(p.values(), p.Name, p.Note, p.ExpiresAfterSeconds, p.FromFirstUse)
		_, err := tx.ExecContext(ctx, `UPDATE plans SET (`+termColumns+`, name, note, expires_after, from_first_use) = `+placeholders(len(args), 1)+` WHERE id = ?`, append(args, p.ID)...)
		return err
	})
}

// RemovePlan deletes a plan. The subscriptions that were added with it keep their terms.
func (s *Store) RemovePlan(ctx context.Context, nameOrID string) (p Plan, err error) {
	return p, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if p, err = plan(ctx, tx, nameOrID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET plan_id = 0 WHERE plan_id = ?`, p.ID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM plans WHERE id = ?`, p.ID)
		return err
	})
}

// Plan finds a plan by name or, if none has that name, by id.
func (s *Store) Plan(ctx context.Context, nameOrID string) (Plan, error) {
	return plan(ctx, s.read, nameOrID)
}

// Plans returns all plans.
func (s *Store) Plans(ctx context.Context) ([]Plan, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+planColumns+` FROM plans ORDER BY id`)
	return collect(rows, err, func(r *sql.Rows) (Plan, error) { return scanPlan(r) })
}

const planColumns = `id, name, note, expires_after, from_first_use, created_at, ` + termColumns

func plan(ctx context.Context, db queryer, nameOrID string) (Plan, error) {
	p, err := scanPlan(db.QueryRowContext(ctx, `SELECT `+planColumns+` FROM plans WHERE name = ? OR id = ?
		ORDER BY name = ? DESC LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID))
	return p, orNotFound(err, "plan", nameOrID)
}

func scanPlan(row interface{ Scan(...any) error }) (p Plan, err error) {
	var created int64
	err = row.Scan(append([]any{&p.ID, &p.Name, &p.Note, &p.ExpiresAfterSeconds, &p.FromFirstUse, &created}, p.columns()...)...)
	p.CreatedAt = time.UnixMilli(created).UTC()
	return p, err
}
