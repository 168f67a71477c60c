package corestore

import (
	"context"
	"database/sql"
	"fmt"
)

// Client is what nodes know of a subscription that is let in. Core keeps one for each of them in
// memory, so that it has no more members than are needed.
type Client struct {
	ID, UserID, GroupID   int64
	UUID, MTProtoSecret   string
	LimitIPs              int64
	LimitConnections      int64
	RateUpBitsPerSecond   int64
	RateDownBitsPerSecond int64
	Credentials           []Credential
	// Grant is nil in what all nodes share: see Store.Grants.
	Grant *Grant
}

// Subscription is a subscription with what the client has.
func (c *Client) Subscription() Subscription {
	return Subscription{
		ID: c.ID, UserID: c.UserID, Enabled: true, Status: Active, UUID: c.UUID, MTProtoSecret: c.MTProtoSecret, Credentials: c.Credentials, Grant: c.Grant,
		Terms: Terms{
			GroupID: c.GroupID, LimitIPs: c.LimitIPs, LimitConnections: c.LimitConnections,
			RateUpBitsPerSecond: c.RateUpBitsPerSecond, RateDownBitsPerSecond: c.RateDownBitsPerSecond,
		},
	}
}

const clientColumns = `s.id, s.user_id, s.group_id, s.uuid, s.mtproto_secret, s.limit_ips, s.limit_connections, s.rate_up, s.rate_down, s.credentials`

// clientRow is a row of clientColumns, in which everything may be missing.
type clientRow struct {
	id, user, group                  sql.NullInt64
	uuid, secret, credentials        sql.NullString
	ips, connections, rateUp, rateDn sql.NullInt64
}

func (r *clientRow) columns() []any {
	return []any{&r.id, &r.user, &r.group, &r.uuid, &r.secret, &r.ips, &r.connections, &r.rateUp, &r.rateDn, &r.credentials}
}

func (r *clientRow) client() (*Client, error) {
	if !r.id.Valid {
		return nil, nil
	}
	own, err := decodeCredentials(r.credentials.String)
	return &Client{
		ID: r.id.Int64, UserID: r.user.Int64, GroupID: r.group.Int64, UUID: r.uuid.String, MTProtoSecret: r.secret.String,
		LimitIPs: r.ips.Int64, LimitConnections: r.connections.Int64, RateUpBitsPerSecond: r.rateUp.Int64, RateDownBitsPerSecond: r.rateDn.Int64, Credentials: own,
	}, err
}

// ClientChange is a subscription that nodes were to know of anew. Client is how it is now; nil
// where nobody is let in by it any more.
type ClientChange struct {
	Seq, ID int64
	Client  *Client
}

const (
	// keptChanges is how many numbers of client_changes are kept at least, and changesWithin how
	// many ClientChanges goes through before all clients are read anew.
	keptChanges   = 400_000
	changesWithin = 200_000
)

// ClientChanges returns what changed behind a number that an earlier call returned, in the order of
// the commits. all is set where that is not known any more: AllClients is asked then. seq is the
// number of what was returned.
//
// Every change after which a node's revision is raised has a number, of the same commit.
func (s *Store) ClientChanges(ctx context.Context, since int64) (changes []ClientChange, seq int64, all bool, err error) {
	if err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM client_changes`).Scan(&seq); err != nil {
		return nil, since, false, fmt.Errorf("look for changed clients: %w", err)
	}
	switch {
	case seq == since:
		return nil, since, false, nil
	case seq < since, seq > since+changesWithin: // another database is there; or it is too long ago
		return nil, since, true, nil
	}
	rows, err := s.read.QueryContext(ctx, `SELECT c.seq, c.subscription_id, `+clientColumns+` FROM client_changes c
		LEFT JOIN subscriptions s ON s.id = c.subscription_id AND s.status IN ('active', 'on_hold') WHERE c.seq > ? ORDER BY c.seq`, since)
	changes, err = collect(rows, err, func(r *sql.Rows) (c ClientChange, err error) {
		var row clientRow
		if err := r.Scan(append([]any{&c.Seq, &c.ID}, row.columns()...)...); err != nil {
			return c, err
		}
		c.Client, err = row.client()
		return c, err
	})
	if err != nil {
		return nil, since, false, fmt.Errorf("read changed clients: %w", err)
	}
	if len(changes) > 0 {
		seq = changes[len(changes)-1].Seq
	}
	return changes, seq, false, nil
}

// AllClients returns all clients by group and id, and the number from which ClientChanges goes on.
func (s *Store) AllClients(ctx context.Context) (clients []*Client, seq int64, err error) {
	// First the number: what changes meanwhile is read once more.
	if err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM client_changes`).Scan(&seq); err != nil {
		return nil, 0, fmt.Errorf("look for changed clients: %w", err)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+clientColumns+` FROM subscriptions s WHERE s.status IN ('active', 'on_hold') ORDER BY s.group_id, s.id`)
	clients, err = collect(rows, err, func(r *sql.Rows) (*Client, error) {
		var row clientRow
		if err := r.Scan(row.columns()...); err != nil {
			return nil, err
		}
		return row.client()
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read all clients: %w", err)
	}
	return clients, seq, nil
}

// forgetClientChanges removes numbers that nobody goes on from. The last one stays: the next number
// is made from it.
func (s *Store) forgetClientChanges(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM client_changes WHERE seq <= (SELECT max(seq) FROM client_changes) - ?`, keptChanges)
	if err != nil {
		return fmt.Errorf("forget old changes of clients: %w", err)
	}
	return nil
}
