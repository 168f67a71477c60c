package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// User is a person who has subscriptions.
type User = coreapi.User

// AddUser adds a user; ErrExists if another one has the name.
func (s *Store) AddUser(ctx context.Context, name string) (User, error) {
	u := User{Name: name, CreatedAt: time.Now().UTC()}
	err := s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
		if u.ID, err = nextID(ctx, tx, "users"); err != nil {
			return err
		}
		added, err := tx.ExecContext(ctx, `INSERT INTO users (id, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, u.ID, name, millis(u.CreatedAt))
		if err != nil {
			return err
		}
		if n, err := added.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fmt.Errorf("user %q: %w", name, ErrExists)
	})
	return u, err
}

// User finds a user by name or, if none has that name, by id.
func (s *Store) User(ctx context.Context, nameOrID string) (User, error) {
	row := s.read.QueryRowContext(ctx, `SELECT id, name, created_at FROM users WHERE name = ? OR id = ?
		ORDER BY name = ? DESC LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID)
	user, err := scanUser(row)
	return user, orNotFound(err, "user", nameOrID)
}

var listedUsers = listing[User]{
	what: "users", table: "users", columns: "id, name, created_at", scan: scanUser, id: func(u User) int64 { return u.ID },
	orders: map[string]order[User]{"name": {"name", func(u User) any { return u.Name }}},
}

// ListUsers returns a page of the users. search is a part of a name, and empty for all.
func (s *Store) ListUsers(ctx context.Context, search string, list List) ([]User, *Position, error) {
	var where []string
	var args []any
	if search != "" {
		where, args = append(where, `name LIKE ? ESCAPE '\'`), append(args, contains(search))
	}
	return listedUsers.page(ctx, s.read, list, where, args)
}

func scanUser(row interface{ Scan(...any) error }) (u User, err error) {
	var created int64
	err = row.Scan(&u.ID, &u.Name, &created)
	u.CreatedAt = time.UnixMilli(created).UTC()
	return u, err
}

// RemoveUser deletes a user and the user's subscriptions, raises the revision of every node
// and returns the nodes. The user's usage rows are kept.
func (s *Store) RemoveUser(ctx context.Context, userID int64) (nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM subscriptions WHERE user_id = ?`, userID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM users WHERE id = ?`, userID); err != nil {
			return err
		}
		nodes, err = raiseRevision(ctx, tx, 0)
		return err
	})
	return nodes, err
}
