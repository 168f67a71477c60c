package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// User is a person who has subscriptions.
type User = coreapi.User

// AddUser adds a user; ErrExists if another one has the name.
func (s *Store) AddUser(ctx context.Context, name string) (User, error) {
	return s.InsertUser(ctx, User{Name: name})
}

// InsertUser is AddUser for a user with a note and contacts.
func (s *Store) InsertUser(ctx context.Context, u User) (User, error) {
	err := s.inClientEdit(ctx, func(tx *sql.Tx) (err error) {
		u, err = insertUser(ctx, tx, u, time.Now())
		return err
	})
	return u, err
}

func insertUser(ctx context.Context, tx *sql.Tx, u User, now time.Time) (_ User, err error) {
	u.CreatedAt, u.Enabled = stored(now), true
	contact, err := encodeContact(&u)
	if err != nil {
		return u, err
	}
	if u.ID, err = nextID(ctx, tx, "users"); err != nil {
		return u, err
	}
	added, err := tx.ExecContext(ctx, `INSERT INTO users (id, name, note, contact, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		u.ID, u.Name, u.Note, contact, millis(u.CreatedAt))
	if err != nil {
		return u, err
	}
	if n, err := added.RowsAffected(); err != nil || n == 1 {
		return u, err
	}
	return u, fmt.Errorf("user %q: %w", u.Name, ErrExists)
}

func encodeContact(u *User) (string, error) {
	if u.Contact == nil {
		u.Contact = map[string]string{}
	}
	raw, err := json.Marshal(u.Contact)
	return string(raw), err
}

// EditUser changes a user and returns it. Where that enables or disables the user, it raises
// the revision of the nodes that the user's subscriptions reach, and returns them.
func (s *Store) EditUser(ctx context.Context, nameOrID string, edit func(*User) error) (u User, nodes []int64, err error) {
	err = s.inClientEdit(ctx, func(tx *sql.Tx) error {
		now, groups, err := s.editUsers(ctx, tx, []UserEdit{{nameOrID, edit}})
		if err != nil {
			return withoutRow(err)
		}
		for _, only := range now {
			u = *only
		}
		nodes, err = s.raiseReached(ctx, tx, groups...)
		return err
	})
	return u, nodes, err
}

// servedGroups returns the groups of the user's subscriptions that are let in.
func servedGroups(ctx context.Context, tx *sql.Tx, userID int64) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, `SELECT DISTINCT group_id FROM subscriptions WHERE user_id = ? AND status IN ('active', 'on_hold')`, userID)
	return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
}

// User finds a user by name or, if none has that name, by id.
func (s *Store) User(ctx context.Context, nameOrID string) (User, error) {
	return user(ctx, s.read, nameOrID)
}

func user(ctx context.Context, db queryer, nameOrID string) (User, error) {
	u, err := scanUser(db.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE name = ? OR id = ?
		ORDER BY name = ? DESC LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID))
	return u, orNotFound(err, "user", nameOrID)
}

// Users returns all users.
func (s *Store) Users(ctx context.Context) ([]User, error) { return s.FindUsers(ctx, UserFilter{}) }

// UserFilter says which users are listed: those that fit all of its members that are set.
type UserFilter struct {
	Search   string  // a part of the name, the note or a contact
	Disabled bool    // only users who are disabled
	IDs      []int64 // only users with these ids, of which there are at most as many as a statement takes; nil for all
}

var listedUsers = listing[User]{
	what: "users", table: "users", columns: userColumns, scan: scanUser, id: func(u User) int64 { return u.ID },
	orders: map[string]order[User]{"name": {"name", func(u User) any { return u.Name }}},
}

// FindUsers returns users by their ids.
func (s *Store) FindUsers(ctx context.Context, f UserFilter) ([]User, error) {
	users, _, err := s.ListUsers(ctx, f, List{})
	return users, err
}

// ListUsers returns a page of the users.
func (s *Store) ListUsers(ctx context.Context, f UserFilter, list List) ([]User, *Position, error) {
	var where []string
	var args []any
	if f.Disabled {
		where = append(where, `enabled = 0`)
	}
	if f.IDs != nil {
		in, ids := inList(f.IDs)
		where, args = append(where, `id IN `+in), append(args, ids...)
	}
	if f.Search != "" {
		condition, words := has(f.Search, "name", "note", "contact")
		where, args = append(where, condition), append(args, words...)
	}
	return listedUsers.page(ctx, s.read, list, where, args)
}

const userColumns = `id, name, created_at, note, contact, enabled, origin`

func scanUser(row interface{ Scan(...any) error }) (u User, err error) {
	var created int64
	var contact string
	if err := row.Scan(&u.ID, &u.Name, &created, &u.Note, &contact, &u.Enabled, &u.Origin); err != nil {
		return u, err
	}
	u.CreatedAt = time.UnixMilli(created).UTC()
	return u, json.Unmarshal([]byte(contact), &u.Contact)
}

// RemoveUser deletes a user and the user's subscriptions, raises the revision of the nodes that
// these reach and returns the nodes. The user's usage rows are kept, and the name beside them.
func (s *Store) RemoveUser(ctx context.Context, userID int64) (nodes []int64, err error) {
	err = s.inClientEdit(ctx, func(tx *sql.Tx) error {
		u, err := scanUser(tx.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = ?`, userID))
		if err != nil {
			return orNotFound(err, "user", userID)
		}
		nodes, err = s.removeUser(ctx, tx, u)
		return err
	})
	return nodes, err
}

func (s *Store) removeUser(ctx context.Context, tx *sql.Tx, u User) ([]int64, error) {
	served, err := servedGroups(ctx, tx, u.ID)
	if err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `DELETE FROM subscriptions WHERE user_id = ? RETURNING id`, u.ID)
	subs, err := collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
	if err != nil {
		return nil, err
	}
	for _, id := range subs {
		if err := keepName(ctx, tx, "subscription", id, u.Name, u.ID); err != nil {
			return nil, err
		}
	}
	if err := keepName(ctx, tx, "user", u.ID, u.Name, 0); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM users WHERE id = ?`, u.ID); err != nil {
		return nil, err
	}
	return s.raiseReached(ctx, tx, served...)
}
