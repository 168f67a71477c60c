package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"nodeagent/coreclient/wire"
)

// loadIdentity reads who this Core is. A new database gets its id and its first epoch.
func (s *Store) loadIdentity(ctx context.Context) error {
	if _, err := s.write.ExecContext(ctx, `INSERT INTO core (id, epoch) SELECT ?, 1 WHERE NOT EXISTS (SELECT 1 FROM core)`, uuid.NewString()); err != nil {
		return fmt.Errorf("create Core's id: %w", err)
	}
	if err := s.changeIdentity(ctx, s.write, `UPDATE core SET id = id`); err != nil {
		return err
	}
	return s.loadTimezone(ctx)
}

// loadTimezone reads in which zone periods begin.
func (s *Store) loadTimezone(ctx context.Context) error {
	var name string
	if err := s.read.QueryRowContext(ctx, `SELECT timezone FROM core`).Scan(&name); err != nil {
		return fmt.Errorf("read the time zone: %w", err)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return fmt.Errorf("read the time zone: %w", err)
	}
	s.zone.Store(zone)
	return nil
}

// changeIdentity runs an UPDATE of the table core and keeps the result in memory: every answer
// to a node has it.
func (s *Store) changeIdentity(ctx context.Context, db queryer, update string, args ...any) error {
	var c wire.CoreIdentity
	err := db.QueryRowContext(ctx, update+` RETURNING id, epoch, next_url`, args...).Scan(&c.ID, &c.Epoch, &c.NextURL)
	if err == nil {
		s.identity.Store(&c)
	}
	return err
}

// Identity returns who this Core is.
func (s *Store) Identity() wire.CoreIdentity { return *s.identity.Load() }

// AnnounceURL stores the address under which nodes are to try this Core too; empty for none.
func (s *Store) AnnounceURL(ctx context.Context, url string) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error { return s.changeIdentity(ctx, tx, `UPDATE core SET next_url = ?`, url) })
}

const (
	// noticePause is how long the epoch stays as it is after a node's word has raised it. All
	// nodes of a restored Core say the same within that time.
	noticePause = time.Hour
	// clockError is how far ahead of Core's clock a revision may be that Core could have
	// made. A greater one is no sign of a restored database.
	clockError = 24 * time.Hour
)

// noticeRestore raises the epoch where a node names a revision that is later than all that
// this database has given it: the database is older than the node's configuration. It
// reports whether it did. given is the revision of the last document that was built for the
// node; where none was, it is the one that the node should run.
func (s *Store) noticeRestore(ctx context.Context, named *int64, given int64) (raised bool, err error) {
	now := s.clock()
	if named == nil || *named <= given || *named > millis(now.Add(clockError)) {
		return false, nil
	}
	err = s.retried(ctx, s.write, func(tx *sql.Tx) error {
		if err := s.changeIdentity(ctx, tx, `UPDATE core SET epoch = epoch + 1, noticed_at = ?, `+loseEvents+` WHERE noticed_at <= ?`, millis(now), millis(now), millis(now.Add(-noticePause))); err != nil {
			return err
		}
		return numberEventsAfter(ctx, tx, millis(now))
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil // it was raised within noticePause
	case err != nil:
		return false, fmt.Errorf("raise the epoch: %w", err)
	}
	return true, nil
}

// Epoch is the epoch of the identity.
func (s *Store) Epoch() int64 { return s.Identity().Epoch }

// noteDaemon stores that a daemon speaks for the node which is not the last one that did. two
// says that it spoke before that one.
func (s *Store) noteDaemon(ctx context.Context, nodeID int64, from Daemon, two bool) error {
	now := sql.NullInt64{Int64: millis(time.Now()), Valid: two}
	_, err := s.write.ExecContext(ctx, `UPDATE nodes SET earlier_boot = boot, boot = ?, machine = ?, two_daemons_at = coalesce(?, two_daemons_at) WHERE id = ?`,
		from.Boot, from.Machine, now, nodeID)
	return err
}

// lastKeyLife is how long a node's key is accepted after the node has used the next one. A
// request that was sent with the old key may arrive later than the first with the new one.
const lastKeyLife = time.Minute

// RotateKey offers the node another auth key, until the node uses it. The node's own key is
// accepted until then. It returns ErrNotFound for a node that has no key.
func (s *Store) RotateKey(ctx context.Context, nodeID int64) error {
	seed := uuid.NewString()
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE nodes SET next_key_hash = ?, next_key_seed = ? WHERE id = ? AND auth_key_hash IS NOT NULL`,
			hashOf(s.keys.nextKey(nodeID, seed)), seed, nodeID)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fmt.Errorf("registered node %d: %w", nodeID, ErrNotFound)
	})
}

// takeNextKey makes the offered key with the hash the key of its node.
func (s *Store) takeNextKey(ctx context.Context, hash []byte) (nodeID int64, err error) {
	err = s.write.QueryRowContext(ctx, `UPDATE nodes SET last_key_hash = auth_key_hash, last_key_ends = ?, auth_key_hash = next_key_hash,
		next_key_hash = NULL, next_key_seed = '' WHERE next_key_hash = ? RETURNING id`, millis(time.Now().Add(lastKeyLife)), hash).Scan(&nodeID)
	switch {
	case err == nil:
		s.known.forget(nodeID)
	case !errors.Is(err, sql.ErrNoRows): // it may have been stored, for a node that is not known here
		s.known.forgetAll()
	}
	return nodeID, err
}

// Authenticate returns the node that has the auth key, ErrNotFound if none has it. The use of
// an offered key makes it the node's key.
func (s *Store) Authenticate(ctx context.Context, authKey string) (nodeID int64, err error) {
	// The time of the lookups depends on the hash, from which the key does not follow.
	hash := hashOf(authKey)
	if id, known := s.known.byKey(keyHash(hash)); known {
		return id, nil
	}
	const own, offered, last = 0, 1, 2
	var which int
	moment := s.known.moment()
	err = s.read.QueryRowContext(ctx, `SELECT id, 0 FROM nodes WHERE auth_key_hash = ?1
		UNION ALL SELECT id, 1 FROM nodes WHERE next_key_hash = ?1
		UNION ALL SELECT id, 2 FROM nodes WHERE last_key_hash = ?1 AND last_key_ends > ?2 LIMIT 1`, hash, millis(time.Now())).Scan(&nodeID, &which)
	switch {
	case err != nil:
	case which == own:
		s.known.keepKey(nodeID, moment, keyHash(hash))
	case which == offered:
		nodeID, err = s.takeNextKey(ctx, hash)
		if errors.Is(err, sql.ErrNoRows) { // another request has used the key at the same time
			err = s.read.QueryRowContext(ctx, `SELECT id FROM nodes WHERE auth_key_hash = ?`, hash).Scan(&nodeID)
		}
	}
	return nodeID, orNotFound(err, "node", "of this auth key")
}
