package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// Webhook is where Core sends events, without the key of the signature.
type Webhook = coreapi.Webhook

// maxWebhooks bounds how many there are: each is served by a goroutine.
const maxWebhooks = 20

// mostWaiting is how many of the events after a webhook's position are looked at to count what waits: up
// to mostEvents are kept, and metrics count every few seconds.
const mostWaiting = 10_000

// AddWebhook adds a webhook, to which events are sent that happen from now on. key is what they are
// signed with.
func (s *Store) AddWebhook(ctx context.Context, url string, kinds []coreapi.EventKind, key []byte) (w Webhook, err error) {
	names, err := json.Marshal(append([]coreapi.EventKind{}, kinds...)) // [] and not null
	if err != nil {
		return w, fmt.Errorf("encode the kinds of a webhook: %w", err)
	}
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		var count int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM webhooks`).Scan(&count); err != nil {
			return err
		}
		if count >= maxWebhooks {
			return fmt.Errorf("%d webhooks are stored: %w; remove one first", count, ErrTooMany)
		}
		id, err := nextID(ctx, tx, "webhooks")
		if err != nil {
			return err
		}
		position, err := newestEvent(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO webhooks (id, url, kinds, secret, position, created_at) VALUES (?, ?, ?, ?, ?, ?)`,
			id, url, string(names), key, position, millis(time.Now())); err != nil {
			return err
		}
		w, err = webhook(ctx, tx, id)
		return err
	})
	return w, err
}

const webhookColumns = `w.id, w.url, w.kinds, w.attempts, w.next_at, w.failing, w.given_up, w.last_error, w.last_error_at, w.delivered_at, w.created_at, w.position`

func scanWebhook(row interface{ Scan(...any) error }) (w Webhook, position int64, err error) {
	var kinds string
	var next, created int64
	var failing bool
	var errorAt, delivered sql.NullInt64
	if err := row.Scan(&w.ID, &w.URL, &kinds, &w.Attempts, &next, &failing, &w.GivenUp, &w.LastError, &errorAt, &delivered, &created, &position); err != nil {
		return w, 0, err
	}
	w.LastErrorAt, w.DeliveredAt, w.CreatedAt = fromMillis(errorAt), fromMillis(delivered), time.UnixMilli(created).UTC()
	w.NextAt = fromMillis(sql.NullInt64{Int64: next, Valid: next > 0})
	switch {
	case failing:
		w.State = "failing"
	case w.Attempts > 0:
		w.State = "retrying"
	default:
		w.State = "ok"
	}
	return w, position, json.Unmarshal([]byte(kinds), &w.Kinds)
}

func webhook(ctx context.Context, db queryer, id int64) (Webhook, error) {
	w, _, err := scanWebhook(db.QueryRowContext(ctx, `SELECT `+webhookColumns+` FROM webhooks w WHERE w.id = ?`, id))
	return w, orNotFound(err, "webhook", id)
}

// Webhooks returns all webhooks, with how many events wait for each, of the next mostWaiting.
func (s *Store) Webhooks(ctx context.Context) ([]Webhook, error) {
	type row struct {
		Webhook
		position int64
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+webhookColumns+` FROM webhooks w ORDER BY w.id`)
	found, err := collect(rows, err, func(r *sql.Rows) (w row, err error) {
		w.Webhook, w.position, err = scanWebhook(r)
		return w, err
	})
	if err != nil {
		return nil, err
	}
	all := []Webhook{}
	for _, w := range found {
		where, args := eventsWanted(EventQuery{After: w.position, Kinds: w.Kinds})
		var oldest sql.NullInt64
		if err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM events WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?), count(*), min(at)
			FROM (SELECT id, at, kind FROM events WHERE id > ? ORDER BY id LIMIT ?) following WHERE `+where,
			append([]any{w.position, mostWaiting, w.position, mostWaiting}, args...)...).Scan(&w.WaitingMore, &w.Waiting, &oldest); err != nil {
			return nil, fmt.Errorf("count the events that wait for webhook %d: %w", w.ID, err)
		}
		w.OldestAt = fromMillis(oldest)
		all = append(all, w.Webhook)
	}
	return all, nil
}

// WebhookIDs returns the ids of all webhooks. It costs the same however many events wait.
func (s *Store) WebhookIDs(ctx context.Context) ([]int64, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT id FROM webhooks ORDER BY id`)
	return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
}

// RemoveWebhook deletes a webhook.
func (s *Store) RemoveWebhook(ctx context.Context, id int64) (w Webhook, err error) {
	return w, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if w, err = webhook(ctx, tx, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM webhooks WHERE id = ?`, id)
		return err
	})
}

// RetryWebhook lets the next event be tried at once.
func (s *Store) RetryWebhook(ctx context.Context, id int64) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE webhooks SET next_at = 0 WHERE id = ?`, id)
		return err
	})
}

// WebhookKey returns where a webhook sends to, and the key of the signature.
func (s *Store) WebhookKey(ctx context.Context, id int64) (url string, key []byte, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT url, secret FROM webhooks WHERE id = ?`, id).Scan(&url, &key)
	return url, key, orNotFound(err, "webhook", id)
}

// Delivery is what is to be sent to a webhook next.
type Delivery struct {
	URL      string
	Key      []byte
	Event    *Event // nil for nothing
	NextAt   time.Time
	Attempts int64 // that have failed since the last success
	Position int64 // the webhook's, for Delivered and NotDelivered
}

// NextDelivery returns the next event for a webhook. The webhook's position moves over events that it
// does not want.
func (s *Store) NextDelivery(ctx context.Context, id int64) (d Delivery, err error) {
	var kinds string
	var next int64
	if err := s.read.QueryRowContext(ctx, `SELECT url, secret, kinds, position, next_at, attempts FROM webhooks WHERE id = ?`, id).
		Scan(&d.URL, &d.Key, &kinds, &d.Position, &next, &d.Attempts); err != nil {
		return d, orNotFound(err, "webhook", id)
	}
	d.NextAt = time.UnixMilli(next)
	q := EventQuery{After: d.Position, Limit: 1}
	if err := json.Unmarshal([]byte(kinds), &q.Kinds); err != nil {
		return d, fmt.Errorf("read the kinds of webhook %d: %w", id, err)
	}
	p, err := s.EventsAfter(ctx, q)
	switch {
	case err != nil:
		return d, err
	case len(p.Events) == 1:
		d.Event = &p.Events[0]
	case p.Next > d.Position:
		if _, err := s.write.ExecContext(ctx, `UPDATE webhooks SET position = ? WHERE id = ? AND position = ?`, p.Next, id, d.Position); err != nil {
			return d, fmt.Errorf("move webhook %d over events that it does not want: %w", id, err)
		}
	}
	return d, nil
}

// Delivered stores that an event has arrived. position is the webhook's before it.
func (s *Store) Delivered(ctx context.Context, id, position, event int64) error {
	_, err := s.write.ExecContext(ctx, `UPDATE webhooks SET position = ?, attempts = 0, first_at = NULL, next_at = 0, failing = 0, delivered_at = ? WHERE id = ? AND position = ?`,
		event, millis(time.Now()), id, position)
	return err
}

// NotDelivered stores that a try has failed, why, and when the next one is. Where tries have failed for
// as long as patience, the events that are as old are given up: the webhook goes on behind them. It
// returns how many were given up.
func (s *Store) NotDelivered(ctx context.Context, id, position int64, reason string, now, next time.Time, patience time.Duration) (givenUp int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		givenUp = 0
		var first int64
		var kinds string
		err := tx.QueryRowContext(ctx, `UPDATE webhooks SET attempts = attempts + 1, first_at = coalesce(first_at, ?1), next_at = ?2, last_error = ?3, last_error_at = ?1
			WHERE id = ?4 AND position = ?5 RETURNING first_at, kinds`, millis(now), millis(next), reason, id, position).Scan(&first, &kinds)
		if err != nil {
			return orNotFound(err, "webhook", id)
		}
		old := millis(now.Add(-patience))
		if first > old {
			return nil
		}
		q := EventQuery{After: position}
		if err := json.Unmarshal([]byte(kinds), &q.Kinds); err != nil {
			return err
		}
		where, args := eventsWanted(q)
		var until sql.NullInt64
		if err := tx.QueryRowContext(ctx, `SELECT max(id) FROM events WHERE `+where+` AND at <= ?`, append(args, old)...).Scan(&until); err != nil || !until.Valid {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM events WHERE `+where+` AND id <= ?`, append(args, until.Int64)...).Scan(&givenUp); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE webhooks SET position = ?, failing = 1, given_up = given_up + ? WHERE id = ?`, until.Int64, givenUp, id)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("note that an event did not reach webhook %d: %w", id, err)
	}
	return givenUp, nil
}

// checkLead is how often an instance looks whether it still leads, and whether it can.
const checkLead = 5 * time.Second

// Lead runs f while no other instance does, until ctx ends. f gets a context that ends when this
// instance may no longer be the one, and returns then. failed gets an error, after which Lead goes on.
func (s *Store) Lead(ctx context.Context, f func(context.Context), failed func(error)) {
	for ctx.Err() == nil {
		if err := s.dialect.lead(ctx, s.write, f); err != nil && ctx.Err() == nil {
			failed(err)
		}
		_ = sleep(ctx, checkLead)
	}
}
