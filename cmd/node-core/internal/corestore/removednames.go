package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreapi"
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

// Erased says what Erase has made nameless.
type Erased = coreapi.Erased

// Erase removes a user, who may be removed already, and everything that tells what the user
// did: names, notes, contacts, credentials and session events with their addresses. The usage
// rows become rows of user 0, which keeps the sums of nodes and inbounds. It raises the revision of
// the nodes that the user's subscriptions reach and returns those.
func (s *Store) Erase(ctx context.Context, nameOrID string) (e Erased, nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		if err := s.dialect.lockUsage(ctx, tx); err != nil {
			return err
		}
		if err := eraseAudit(ctx, tx, nameOrID); err != nil {
			return err
		}
		u, err := user(ctx, tx, nameOrID)
		if err == nil {
			e.User = u.ID
			if nodes, err = removeUser(ctx, tx, u); err != nil {
				return err
			}
		} else if !errors.Is(err, ErrNotFound) {
			return err
		} else {
			row := tx.QueryRowContext(ctx, `SELECT id FROM removed_names WHERE kind = 'user' AND (id = ? OR name = ?) ORDER BY removed_at DESC LIMIT 1`, parseID(nameOrID), nameOrID)
			if err := orNotFound(row.Scan(&e.User), "user", nameOrID); err != nil {
				return err
			}
		}
		for _, statement := range []string{
			`DELETE FROM removed_names WHERE kind = 'subscription' AND user_id = ?1`,
			`DELETE FROM removed_names WHERE kind = 'user' AND id = ?1`,
			`DELETE FROM online_sessions WHERE user_id = ?1`,
			`INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
				SELECT node_id, recorded_at, 0, 0, node_protocol_id, sum(min(bytes_up, ` + eighth + `)), sum(min(bytes_down, ` + eighth + `)), max(flagged) FROM usage WHERE user_id = ?1
				GROUP BY node_id, recorded_at, node_protocol_id
				` + addToUsage,
		} {
			if _, err := tx.ExecContext(ctx, statement, e.User); err != nil {
				return fmt.Errorf("erase user %d: %w", e.User, err)
			}
		}
		if e.Rows, err = deleted(tx.ExecContext(ctx, `DELETE FROM usage WHERE user_id = ?`, e.User)); err != nil {
			return fmt.Errorf("erase user %d: %w", e.User, err)
		}
		if e.Events, err = deleted(tx.ExecContext(ctx, `DELETE FROM session_events WHERE user_id = ?`, e.User)); err != nil {
			return fmt.Errorf("erase user %d: %w", e.User, err)
		}
		return nil
	})
	return e, nodes, err
}

func deleted(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// eighth bounds what one row adds to a sum, see mergeSlice.
var eighth = fmt.Sprint(int64(maxSum) / 8)

// eraseAudit takes a user's name out of the audit log: who changed something when stays.
func eraseAudit(ctx context.Context, tx *sql.Tx, nameOrID string) error {
	var name string
	err := tx.QueryRowContext(ctx, `SELECT name FROM users WHERE name = ? OR id = ? UNION ALL
		SELECT name FROM removed_names WHERE kind = 'user' AND (name = ? OR id = ?) LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID, parseID(nameOrID)).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return fmt.Errorf("find the name of user %s: %w", nameOrID, err)
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE audit SET target = CASE WHEN target = ?1 OR target LIKE ?2 ESCAPE '\' THEN '/users/(erased)' ELSE target END, details = '{}'
		WHERE target = ?1 OR target LIKE ?2 ESCAPE '\' OR lower(details) LIKE ?3 ESCAPE '\'`, "/users/"+name, "/users/"+escaped(name)+"/%", contains(string(quoted)))
	if err != nil {
		return fmt.Errorf("erase user %s from the audit log: %w", nameOrID, err)
	}
	return nil
}
