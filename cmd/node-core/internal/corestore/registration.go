package corestore

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"database/sql"
	"errors"
	"time"

	"nodeagent/coreclient/wire"
)

// NewCode makes a new registration code for a node and deletes its unused codes. A node that
// is registered keeps its auth key until the new code is used.
func (s *Store) NewCode(ctx context.Context, nodeID int64, life time.Duration) (string, error) {
	code := newCode()
	return code, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if err := deleteUnusedCodes(ctx, tx, nodeID); err != nil {
			return err
		}
		return addCode(ctx, tx, nodeID, code, time.Now().Add(life))
	})
}

func addCode(ctx context.Context, tx *sql.Tx, nodeID int64, code string, expires time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO registration_codes (hash, node_id, expires_at) VALUES (?, ?, ?)`,
		hashOf(normalizeCode(code)), nodeID, millis(expires))
	return err
}

// deleteUnusedCodes keeps used codes: repeatRegistration looks for them.
func deleteUnusedCodes(ctx context.Context, tx *sql.Tx, nodeID int64) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM registration_codes WHERE node_id = ? AND used_at IS NULL`, nodeID)
	return err
}

// The reasons to refuse a registration. The operator of the node reads their words.
var (
	ErrCodeUnknown = errors.New("the code is not known; check it, or ask for a new one")
	ErrCodeExpired = errors.New("the code has expired; ask for a new one")
	ErrCodeUsed    = errors.New("the code has been used; ask for a new one")
)

// Register uses up a registration code and issues the auth key of its node. An earlier auth
// key of the node is not accepted any more. r.Name is ignored: the name is the operator's.
//
// attempt is the Idempotency-Key of the request. A repeated request with the same code and
// attempt gets the same auth key again, until the node has used that key for the first time.
// Without an attempt only the first request succeeds.
//
// Errors: ErrCodeUnknown, ErrCodeExpired, ErrCodeUsed.
func (s *Store) Register(ctx context.Context, r wire.RegisterRequest, attempt string) (nodeID int64, authKey string, err error) {
	nonce := attempt
	if nonce == "" {
		nonce = rand.Text()
	}
	authKey = s.keys.authKey(r.Code, nonce)
	codeHash, now := hashOf(normalizeCode(r.Code)), time.Now()
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		var expires int64
		var used sql.NullInt64
		var usedBy []byte
		err := tx.QueryRowContext(ctx, `SELECT node_id, expires_at, used_at, attempt FROM registration_codes WHERE hash = ?`, codeHash).
			Scan(&nodeID, &expires, &used, &usedBy)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrCodeUnknown
		case err != nil:
			return err
		case used.Valid:
			return s.repeatRegistration(ctx, tx, nodeID, authKey, attempt, usedBy)
		case expires <= millis(now):
			return ErrCodeExpired
		}
		if _, err := tx.ExecContext(ctx, `UPDATE registration_codes SET used_at = ?, attempt = ? WHERE hash = ?`,
			millis(now), hashOf(nonce), codeHash); err != nil {
			return err
		}
		if err := deleteUnusedCodes(ctx, tx, nodeID); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE nodes SET auth_key_hash = ?, next_key_hash = NULL, next_key_seed = '', last_key_hash = NULL,
			boot = '', earlier_boot = '', two_daemons_at = NULL, host = ?, ip = ?, region = CASE WHEN ? = '' THEN region ELSE ? END,
			registered_at = ?, last_seen_at = NULL, applied_revision = NULL, status = 'pending', told = '', sync_status = 'pending' WHERE id = ?`,
			hashOf(authKey), r.Host, r.IP, r.Region, r.Region, millis(now), nodeID)
		return err
	})
	return nodeID, authKey, err
}

// repeatRegistration returns nil where the attempt may get its auth key again, else
// ErrCodeUsed. usedBy is the hash of the attempt that used the code.
func (s *Store) repeatRegistration(ctx context.Context, tx *sql.Tx, nodeID int64, authKey, attempt string, usedBy []byte) error {
	if attempt == "" || subtle.ConstantTimeCompare(usedBy, hashOf(attempt)) != 1 {
		return ErrCodeUsed
	}
	var current []byte
	var seen sql.NullInt64
	if err := tx.QueryRowContext(ctx, `SELECT auth_key_hash, last_seen_at FROM nodes WHERE id = ?`, nodeID).Scan(&current, &seen); err != nil {
		return err
	}
	if seen.Valid || subtle.ConstantTimeCompare(current, hashOf(authKey)) != 1 {
		return ErrCodeUsed // the node has its key, or was registered with a later code
	}
	return nil
}
