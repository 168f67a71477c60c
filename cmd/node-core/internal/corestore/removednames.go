package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
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

// keepFormerNames keeps the names of users who got other ones, until the users are erased or the
// audit log has no entry that is as old.
func keepFormerNames(ctx context.Context, tx *sql.Tx, former []formerName) error {
	now := millis(time.Now())
	for part := range slices.Chunk(former, rowsPerInsert) {
		var args []any
		for _, f := range part {
			args = append(args, f.user, f.name, now)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO former_names (user_id, name, until) VALUES `+placeholders(3, len(part))+` ON CONFLICT DO NOTHING`, args...); err != nil {
			return fmt.Errorf("keep the former names of users: %w", err)
		}
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
