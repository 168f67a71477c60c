package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nodeagent/coreapi"
)

// NewUser is a user to add with subscriptions. Of the subscriptions, the note, the plan and the
// terms count.
type NewUser struct {
	User
	Subscriptions []Subscription
}

// MaxBulk is how many users one call of BulkUsers may add and change, and how many subscriptions one
// call of BulkSubscriptions.
const MaxBulk = 10_000

// rowsPerInsert is how many users or subscriptions one INSERT has.
const rowsPerInsert = 200

// BulkUsers adds and changes users in one transaction: all of them, or none. It returns the users
// that it has added, each with its subscriptions, and the nodes whose revision that raised. A
// subscription that can't be is a RowError with its user's row.
func (s *Store) BulkUsers(ctx context.Context, add []NewUser, edits []UserEdit) (nodes []int64, err error) {
	defer s.enforcing.wake()
	now := s.clock()
	err = s.inClientEdit(ctx, func(tx *sql.Tx) error {
		if err := insertUsers(ctx, tx, add, now); err != nil {
			return err
		}
		var subs []*Subscription
		var rows []int // of subs, in add
		for i := range add {
			for j := range add[i].Subscriptions {
				add[i].Subscriptions[j].UserID = add[i].ID
				subs, rows = append(subs, &add[i].Subscriptions[j]), append(rows, i)
			}
		}
		groups, err := insertSubscriptions(ctx, tx, subs, nil, now, s.Timezone())
		if wrong, is := errors.AsType[RowError](err); is {
			wrong.Row = rows[wrong.Row]
			return wrong
		}
		if err != nil {
			return err
		}
		_, reached, err := s.editUsers(ctx, tx, edits)
		if err != nil {
			return err
		}
		groups = append(groups, reached...)
		nodes, err = s.raiseReached(ctx, tx, groups...)
		return err
	})
	return nodes, err
}

// insertUsers adds users and sets their ids.
func insertUsers(ctx context.Context, tx *sql.Tx, add []NewUser, now time.Time) error {
	if len(add) == 0 {
		return nil
	}
	id, err := nextID(ctx, tx, "users")
	if err != nil {
		return err
	}
	for start := 0; start < len(add); start += rowsPerInsert {
		part := add[start:min(start+rowsPerInsert, len(add))]
		names, args := make([]any, 0, len(part)), make([]any, 0, 6*len(part))
		for i := range part {
			u := &part[i].User
			u.ID, u.Enabled, u.CreatedAt = id, true, stored(now)
			id++
			contact, err := encodeContact(u)
			if err != nil {
				return err
			}
			names, args = append(names, u.Name), append(args, u.ID, u.Name, u.Note, contact, millis(now), u.Origin)
		}
		var taken string
		err := tx.QueryRowContext(ctx, `SELECT coalesce(min(name), '') FROM users WHERE name IN `+placeholders(len(names), 1), names...).Scan(&taken)
		if err != nil {
			return err
		}
		if taken != "" {
			return fmt.Errorf("user %q: %w", taken, ErrExists)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO users (id, name, note, contact, created_at, origin) VALUES `+placeholders(6, len(part)), args...); err != nil {
			return fmt.Errorf("add users: %w", err)
		}
	}
	return nil
}

// insertSubscriptions adds subscriptions, each with the UserID of a user who is there, and sets their
// ids and credentials. disabled are the users who are not let in. It returns the groups of those
// subscriptions that are let in.
//
// A subscription that can't be is a RowError of the list "create", with its index in all.
func insertSubscriptions(ctx context.Context, tx *sql.Tx, all []*Subscription, disabled map[int64]bool, now time.Time, zone *time.Location) (groups []int64, err error) {
	if len(all) == 0 {
		return nil, nil
	}
	for i, sub := range all {
		sub.Rotate()
		sub.Enabled, sub.CreatedAt = true, stored(now)
		if err := sub.settle(now, zone); err != nil {
			return nil, RowError{"create", i, err}
		}
	}
	first, err := nextID(ctx, tx, "subscriptions")
	if err != nil {
		return nil, err
	}
	columns := `id, user_id, uuid, mtproto_secret, note, plan_id, expires_at, expires_after, expired, created_at, period_ends, starts_by, user_enabled, ` + termColumns
	for part := range slices.Chunk(all, rowsPerInsert) {
		var args []any
		for i, sub := range part {
			sub.ID = first + int64(i)
			args = append(args, sub.ID, sub.UserID, sub.UUID, sub.MTProtoSecret, sub.Note, sub.PlanID, orNull(sub.ExpiresAt), sub.ExpiresAfterSeconds, sub.expired, millis(now), orNull(sub.periodEnds), orNull(sub.StartsBy), !disabled[sub.UserID])
			args = append(args, sub.values()...)
		}
		first += int64(len(part))
		if _, err := tx.ExecContext(ctx, `INSERT INTO subscriptions (`+columns+`) VALUES `+placeholders(strings.Count(columns, ",")+1, len(part)), args...); err != nil {
			return nil, fmt.Errorf("add subscriptions: %w", err)
		}
	}
	rows, err := tx.QueryContext(ctx, `SELECT DISTINCT group_id FROM subscriptions WHERE id >= ? AND status IN ('`+coreapi.Active+`', '`+coreapi.OnHold+`')`, all[0].ID)
	return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
}
