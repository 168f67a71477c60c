package corestore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
		name, err := eraseAudit(ctx, tx, nameOrID)
		if err != nil {
			return err
		}
		var credentials []string
		u, err := user(ctx, tx, nameOrID)
		if err == nil {
			e.User = u.ID
			if credentials, err = credentialsOf(ctx, tx, u.ID); err != nil {
				return err
			}
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
		if err := eraseAnswers(ctx, tx, e.User, name, credentials); err != nil {
			return err
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
		if _, err := tx.ExecContext(ctx, `UPDATE events SET user_id = 0, user_name = '', subscription_id = 0 WHERE user_id = ?`, e.User); err != nil {
			return fmt.Errorf("take user %d out of the events: %w", e.User, err)
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

// eraseAudit takes a user's name out of the audit log, and returns it: who changed something when
// stays.
func eraseAudit(ctx context.Context, tx *sql.Tx, nameOrID string) (name string, err error) {
	err = tx.QueryRowContext(ctx, `SELECT name FROM users WHERE name = ? OR id = ? UNION ALL
		SELECT name FROM removed_names WHERE kind = 'user' AND (name = ? OR id = ?) LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID, parseID(nameOrID)).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("find the name of user %s: %w", nameOrID, err)
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return "", err
	}
	_, err = tx.ExecContext(ctx, `UPDATE audit SET target = CASE WHEN target = ?1 OR target LIKE ?2 ESCAPE '\' THEN '/users/(erased)' ELSE target END, details = '{}'
		WHERE target = ?1 OR target LIKE ?2 ESCAPE '\' OR details LIKE ?3 ESCAPE '\'`, "/users/"+name, "/users/"+escaped(name)+"/%", contains(string(quoted)))
	if err != nil {
		return "", fmt.Errorf("erase user %s from the audit log: %w", nameOrID, err)
	}
	return name, nil
}

// credentialsOf returns the credentials of a user's subscriptions.
func credentialsOf(ctx context.Context, tx *sql.Tx, userID int64) (all []string, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT uuid, mtproto_secret FROM subscriptions WHERE user_id = ?`, userID)
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var uuid, secret string
		err := r.Scan(&uuid, &secret)
		all = append(all, uuid, secret)
		return struct{}{}, err
	})
	return all, err
}

// eraseAnswers forgets the answers, kept for repeated requests, that have a user's name, id or
// credentials. The keys stay: the changes are not made twice.
func eraseAnswers(ctx context.Context, tx *sql.Tx, userID int64, name string, credentials []string) error {
	words := [][]byte{fmt.Appendf(nil, `"userId":%d,`, userID), fmt.Appendf(nil, `"userId":%d}`, userID)}
	if quoted := quotedAsAnswered(name); name != "" {
		words = append(words, quoted)
	}
	for _, text := range credentials {
		if text != "" {
			words = append(words, []byte(text))
		}
	}
	type request struct{ who, key string }
	var found []request
	rows, err := tx.QueryContext(ctx, `SELECT who, key, answer FROM api_requests WHERE answer IS NOT NULL`)
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var of request
		var answer sql.RawBytes
		err := r.Scan(&of.who, &of.key, &answer)
		if slices.ContainsFunc(words, func(word []byte) bool { return bytes.Contains(answer, word) }) {
			found = append(found, of)
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("find the kept answers about user %d: %w", userID, err)
	}
	for _, of := range found {
		if _, err := tx.ExecContext(ctx, `UPDATE api_requests SET status = 0, header = '{}', answer = NULL WHERE who = ? AND key = ?`, of.who, of.key); err != nil {
			return fmt.Errorf("forget an answer about user %d: %w", userID, err)
		}
	}
	return nil
}

// quotedAsAnswered is a text as the answers of the API have it in JSON, which leaves <, > and & as
// they are.
func quotedAsAnswered(text string) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // never fails for a text
	return bytes.TrimSpace(out.Bytes())
}
