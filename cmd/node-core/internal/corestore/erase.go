package corestore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"nodeagent/coreapi"
)

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
		names, err := eraseAudit(ctx, tx, nameOrID)
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
			if err := eraseDevices(ctx, tx, u.ID); err != nil {
				return err
			}
			if nodes, err = s.removeUser(ctx, tx, u); err != nil {
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
		if err := eraseAnswers(ctx, tx, e.User, names, credentials); err != nil {
			return err
		}
		for _, statement := range []string{
			`DELETE FROM removed_names WHERE kind = 'subscription' AND user_id = ?1`,
			`DELETE FROM removed_names WHERE kind = 'user' AND id = ?1`,
			`DELETE FROM former_names WHERE user_id = ?1`,
			`DELETE FROM events WHERE user_id = ?1`,
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

// usedName is a name and until when a user had it, in Unix milliseconds.
type usedName struct {
	name  string
	until int64
}

// namesOf returns the names that a user, who may be removed already, has and had before.
func namesOf(ctx context.Context, tx *sql.Tx, nameOrID string) ([]usedName, error) {
	var id int64
	now := usedName{until: math.MaxInt64}
	err := tx.QueryRowContext(ctx, `SELECT id, name FROM users WHERE name = ? OR id = ? UNION ALL
		SELECT id, name FROM removed_names WHERE kind = 'user' AND (name = ? OR id = ?) LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID, parseID(nameOrID)).Scan(&id, &now.name)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT name, until FROM former_names WHERE user_id = ?`, id)
	former, err := collect(rows, err, func(r *sql.Rows) (u usedName, err error) { return u, r.Scan(&u.name, &u.until) })
	return append(former, now), err
}

// eraseAudit takes a user's names out of the audit log, and returns them. The entries stay,
// with their times and callers. A former name is taken out of entries up to the moment when the user got another
// name: somebody else may have it now.
func eraseAudit(ctx context.Context, tx *sql.Tx, nameOrID string) (names []string, err error) {
	used, err := namesOf(ctx, tx, nameOrID)
	if err != nil {
		return nil, fmt.Errorf("find the names of user %s: %w", nameOrID, err)
	}
	for _, u := range used {
		quoted, err := json.Marshal(u.name)
		if err != nil {
			return nil, err
		}
		_, err = tx.ExecContext(ctx, `UPDATE audit SET target = CASE WHEN target = ?1 OR target LIKE ?2 ESCAPE '\' THEN '/users/(erased)' ELSE target END, details = '{}'
			WHERE at <= ?4 AND (target = ?1 OR target LIKE ?2 ESCAPE '\' OR details LIKE ?3 ESCAPE '\')`, "/users/"+u.name, "/users/"+escaped(u.name)+"/%", contains(string(quoted)), u.until)
		if err != nil {
			return nil, fmt.Errorf("erase user %s from the audit log: %w", nameOrID, err)
		}
		names = append(names, u.name)
	}
	return names, nil
}

// eraseDevices takes what was set for a user's devices out of the audit log: the names of devices tell
// of their owner.
func eraseDevices(ctx context.Context, tx *sql.Tx, userID int64) error {
	if _, err := tx.ExecContext(ctx, `UPDATE audit SET details = '{}' WHERE target IN
		(SELECT '/devices/' || d.id FROM devices d JOIN subscriptions s ON s.id = d.subscription_id WHERE s.user_id = ?)`, userID); err != nil {
		return fmt.Errorf("erase the devices of user %d from the audit log: %w", userID, err)
	}
	return nil
}

// credentialsOf returns the credentials of a user's subscriptions.
func credentialsOf(ctx context.Context, tx *sql.Tx, userID int64) (all []string, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT uuid, mtproto_secret, credentials FROM subscriptions WHERE user_id = ?`, userID)
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var uuid, secret, own string
		if err := r.Scan(&uuid, &secret, &own); err != nil {
			return struct{}{}, err
		}
		all = append(all, uuid, secret)
		imported, err := decodeCredentials(own)
		for _, c := range imported {
			all = append(all, c.ID, c.Password, c.PrivateKey, c.PublicKey, c.PreSharedKey)
		}
		return struct{}{}, err
	})
	return all, err
}

// eraseAnswers forgets the answers, kept for repeated requests, that have a user's names, id or
// credentials. The keys stay: the changes are not made twice.
func eraseAnswers(ctx context.Context, tx *sql.Tx, userID int64, names, credentials []string) error {
	words := [][]byte{fmt.Appendf(nil, `"userId":%d,`, userID), fmt.Appendf(nil, `"userId":%d}`, userID)}
	for _, name := range names {
		words = append(words, quotedAsAnswered(name))
	}
	for _, text := range credentials {
		switch {
		case len(text) >= 16:
			words = append(words, []byte(text))
		case text != "": // an imported name or password can be a word that other answers have too
			words = append(words, quotedAsAnswered(text))
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
