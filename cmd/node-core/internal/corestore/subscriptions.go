package corestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"time"

	"github.com/google/uuid"
)

// Subscription is the credentials with which a user connects to every inbound of every node,
// and the traffic that was counted for them, in bytes.
type Subscription struct {
	ID        int64  `json:"id"`
	UUID      string `json:"uuid"` // secret: the credential on Xray's inbounds
	UserID    int64  `json:"userId"`
	Enabled   bool   `json:"enabled"`
	BytesUp   int64  `json:"bytesUp"`
	BytesDown int64  `json:"bytesDown"`
	// MTProtoSecret is the credential on MTProto inbounds: 32 hex digits. Secret too.
	MTProtoSecret string `json:"mtprotoSecret"`
}

// AddSubscription adds an enabled subscription with new credentials for the user and raises
// the revision of every node. It returns the nodes.
func (s *Store) AddSubscription(ctx context.Context, userID int64) (sub Subscription, nodes []int64, err error) {
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	sub = Subscription{UUID: uuid.NewString(), UserID: userID, Enabled: true, MTProtoSecret: hex.EncodeToString(secret[:])}
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		if sub.ID, err = nextID(ctx, tx, "subscriptions"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO subscriptions (id, user_id, uuid, mtproto_secret, created_at) VALUES (?, ?, ?, ?, ?)`,
			sub.ID, userID, sub.UUID, sub.MTProtoSecret, millis(time.Now())); err != nil {
			return err
		}
		nodes, err = raiseRevision(ctx, tx, 0)
		return err
	})
	return sub, nodes, err
}

// EnableSubscription enables or disables a subscription and returns it. Where that changes
// it, it raises the revision of every node and returns the nodes.
func (s *Store) EnableSubscription(ctx context.Context, idOrUUID string, enabled bool) (sub Subscription, nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		row := tx.QueryRowContext(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions WHERE id = ? OR uuid = ?`, parseID(idOrUUID), idOrUUID)
		if sub, err = scanSubscription(row); err != nil {
			return orNotFound(err, "subscription", withoutUUID(idOrUUID))
		}
		if sub.Enabled == enabled {
			return nil
		}
		sub.Enabled = enabled
		if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET enabled = ? WHERE id = ?`, enabled, sub.ID); err != nil {
			return err
		}
		nodes, err = raiseRevision(ctx, tx, 0)
		return err
	})
	return sub, nodes, err
}

// RemoveSubscription deletes a subscription, raises the revision of every node and returns
// the nodes. The subscription's usage rows are kept.
func (s *Store) RemoveSubscription(ctx context.Context, idOrUUID string) (nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		var id int64
		row := tx.QueryRowContext(ctx, `DELETE FROM subscriptions WHERE id = ? OR uuid = ? RETURNING id`, parseID(idOrUUID), idOrUUID)
		if err := orNotFound(row.Scan(&id), "subscription", withoutUUID(idOrUUID)); err != nil {
			return err
		}
		nodes, err = raiseRevision(ctx, tx, 0)
		return err
	})
	return nodes, err
}

// Subscription finds a subscription by its id or UUID.
func (s *Store) Subscription(ctx context.Context, idOrUUID string) (Subscription, error) {
	row := s.read.QueryRowContext(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions WHERE id = ? OR uuid = ?`, parseID(idOrUUID), idOrUUID)
	sub, err := scanSubscription(row)
	return sub, orNotFound(err, "subscription", withoutUUID(idOrUUID))
}

// Subscriptions returns all subscriptions.
func (s *Store) Subscriptions(ctx context.Context) ([]Subscription, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions ORDER BY id`)
	return collect(rows, err, func(r *sql.Rows) (Subscription, error) { return scanSubscription(r) })
}

// EnabledSubscriptions returns how many subscriptions are enabled.
func (s *Store) EnabledSubscriptions(ctx context.Context) (n int, err error) {
	return n, s.read.QueryRowContext(ctx, `SELECT count(*) FROM subscriptions WHERE enabled = 1`).Scan(&n)
}

const subscriptionColumns = `id, uuid, user_id, enabled, bytes_up, bytes_down, mtproto_secret`

func scanSubscription(row interface{ Scan(...any) error }) (s Subscription, err error) {
	err = row.Scan(&s.ID, &s.UUID, &s.UserID, &s.Enabled, &s.BytesUp, &s.BytesDown, &s.MTProtoSecret)
	return s, err
}

// withoutUUID returns how an error names a subscription: by its id, and not by a UUID, which is
// a credential.
func withoutUUID(idOrUUID string) string {
	if parseID(idOrUUID) < 0 {
		return "with this UUID"
	}
	return idOrUUID
}
