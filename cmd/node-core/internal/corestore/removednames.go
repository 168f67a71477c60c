package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// keepName keeps the name of a row that is removed, for the usage rows that name its id. userID
// is the user whose subscription it was, 0 for any other row.
func keepName(ctx context.Context, tx *sql.Tx, kind string, id int64, name string, userID int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO removed_names (kind, id, name, user_id, removed_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (kind, id) DO UPDATE SET name = excluded.name, removed_at = excluded.removed_at`, kind, id, name, userID, millis(time.Now()))
	if err != nil {
		return fmt.Errorf("keep the name of %s %d: %w", kind, id, err)
	}
	return nil
}

// keepFormerName keeps the name of a user who gets another one, until the user is erased or the
// audit log has no entry that is as old.
func keepFormerName(ctx context.Context, tx *sql.Tx, userID int64, name string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO former_names (user_id, name, until) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, userID, name, millis(time.Now()))
	if err != nil {
		return fmt.Errorf("keep the former name of user %d: %w", userID, err)
	}
	return nil
}

// nameIsFree returns ErrExists where a row of the table other than the one of the id has the name.
func nameIsFree(ctx context.Context, tx *sql.Tx, table, name string, id int64) error {
	var taken bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM `+table+` WHERE name = ? AND id != ?)`, name, id).Scan(&taken); err != nil {
		return err
	}
	if taken {
		return ErrExists
	}
	return nil
}
