package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
)

// NewSubscription is a subscription to add for a user, who is named by name or id. Of the
// subscription, the note, the plan and the terms count.
type NewSubscription struct {
	User string
	Subscription
}

// RowError says in which row of a call with many an error is.
type RowError struct {
	List string // "create" or "update"
	Row  int    // from 0
	error
}

func (e RowError) Error() string { return fmt.Sprintf("%s[%d]: %v", e.List, e.Row, e.error) }
func (e RowError) Unwrap() error { return e.error }

// withoutRow is an error of a call with one row.
func withoutRow(err error) error {
	if row, is := errors.AsType[RowError](err); is {
		return row.error
	}
	return err
}

// BulkSubscriptions adds and changes subscriptions in one transaction: all of them, or none. It sets
// the ids and credentials of those that it adds, and returns the nodes whose revision that raised. An
// error of one row is a RowError.
func (s *Store) BulkSubscriptions(ctx context.Context, add []NewSubscription, edits []SubscriptionEdit) (nodes []int64, err error) {
	defer s.enforcing.wake()
	err = s.inClientEdit(ctx, func(tx *sql.Tx) error {
		groups, err := s.addSubscriptions(ctx, tx, add)
		if err != nil {
			return err
		}
		_, reached, err := s.editSubscriptions(ctx, tx, edits)
		if err != nil {
			return err
		}
		nodes, err = s.raiseReached(ctx, tx, append(groups, reached...)...)
		return err
	})
	return nodes, err
}

func (s *Store) addSubscriptions(ctx context.Context, tx *sql.Tx, add []NewSubscription) (groups []int64, err error) {
	users, err := usersNamed(ctx, tx, add)
	if err != nil {
		return nil, err
	}
	disabled, subs := map[int64]bool{}, make([]*Subscription, len(add))
	for i := range add {
		user, known := users[add[i].User]
		if !known {
			return nil, RowError{"create", i, fmt.Errorf("user %s: %w", add[i].User, ErrNotFound)}
		}
		if !user.enabled {
			disabled[user.id] = true
		}
		add[i].UserID = user.id
		subs[i] = &add[i].Subscription
	}
	return insertSubscriptions(ctx, tx, subs, disabled, s.clock(), s.Timezone())
}

type namedUser struct {
	id      int64
	enabled bool
}

// usersNamed finds the users of new subscriptions by their names and, where none has the name, by
// their ids.
func usersNamed(ctx context.Context, tx *sql.Tx, add []NewSubscription) (map[string]namedUser, error) {
	users, names, ids := map[string]namedUser{}, []any{}, []any{}
	for _, sub := range add {
		names = append(names, sub.User)
	}
	find := func(column string, values []any) error {
		for values := range chunks(values) {
			rows, err := tx.QueryContext(ctx, `SELECT id, name, enabled FROM users WHERE `+column+` IN `+placeholders(len(values), 1), values...)
			_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
				var u namedUser
				var name string
				err := r.Scan(&u.id, &name, &u.enabled)
				if column == "id" {
					name = strconv.FormatInt(u.id, 10)
				}
				users[name] = u
				return struct{}{}, err
			})
			if err != nil {
				return fmt.Errorf("find users by %s: %w", column, err)
			}
		}
		return nil
	}
	if err := find("name", names); err != nil {
		return nil, err
	}
	for _, sub := range add {
		if id := parseID(sub.User); id >= 0 && users[sub.User] == (namedUser{}) {
			ids = append(ids, id)
		}
	}
	return users, find("id", ids)
}
