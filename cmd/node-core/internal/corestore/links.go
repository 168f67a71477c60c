package corestore

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// LinkPrefix is how the paths of subscriptions' own links begin; the token stands behind it.
const LinkPrefix = "/sub/"

// linkSize is how many bytes of the code a link's token has. 128 bits can't be guessed.
const linkSize = 16

// LinkToken returns the token of the subscription's own link, with which an application fetches
// the subscription's configuration. It is a secret, of letters, digits, "-" and "_": the id in 8
// bytes and a code of a secret of this database, in base64url. RotateLink makes another one.
func (s *Store) LinkToken(sub Subscription) string {
	token := binary.BigEndian.AppendUint64(nil, uint64(sub.ID))
	return base64.RawURLEncoding.EncodeToString(append(token, s.keys.linkCode(sub)...))
}

func (k keyMaker) linkCode(sub Subscription) []byte {
	mac := hmac.New(sha256.New, k.secret)
	fmt.Fprintf(mac, "subscription-link\x00%d\x00%d", sub.ID, sub.linkVersion)
	return mac.Sum(nil)[:linkSize]
}

// Linked is what a fetch of a subscription's own link begins with.
type Linked struct {
	Subscription
	User string // the name of the user
	// Changes is the version of everything else that links say, see LinkRows.
	Changes int64
}

// SubscriptionByLink finds the subscription of a token, also one that lets nobody in. The error is
// ErrNotFound where the token is none, or one of before a rotation.
func (s *Store) SubscriptionByLink(ctx context.Context, token string) (l Linked, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 8+linkSize {
		return l, fmt.Errorf("subscription with this link: %w", ErrNotFound)
	}
	id := int64(binary.BigEndian.Uint64(raw))
	row := s.read.QueryRowContext(ctx, `SELECT `+subscriptionColumnsOf("s.")+`, u.name, (SELECT version FROM link_changes)
		FROM subscriptions s JOIN users u ON u.id = s.user_id WHERE s.id = ?`, id)
	if l.Subscription, err = scanSubscription(row, &l.User, &l.Changes); err != nil {
		return l, orNotFound(err, "subscription", "with this link")
	}
	if !hmac.Equal(raw[8:], s.keys.linkCode(l.Subscription)) {
		return Linked{}, fmt.Errorf("subscription with this link: %w", ErrNotFound)
	}
	return l, nil
}

// LinkRows are the rows of which the links of a group's subscriptions are made. Every change of them
// raises Changes in its transaction, whichever instance of Core makes it (migration 19).
type LinkRows struct {
	Changes   int64
	Nodes     []Node
	Protocols []Protocol
	Hosts     []Host
	Group     Group // without the number of its subscriptions
	Templates []coreapi.ClientTemplate
	Rules     []coreapi.ClientRule
}

// LinkChanges returns LinkRows.Changes.
func (s *Store) LinkChanges(ctx context.Context) (version int64, err error) {
	if err = s.read.QueryRowContext(ctx, `SELECT version FROM link_changes`).Scan(&version); err != nil {
		err = fmt.Errorf("read the version of links: %w", err)
	}
	return version, err
}

// LinkRows reads the rows for a group.
//
// The queries are not one transaction, so the rows can be newer than Changes, which is read first.
// The next fetch sees another version then, and the rows are read once more.
func (s *Store) LinkRows(ctx context.Context, groupID int64) (rows LinkRows, err error) {
	if rows.Changes, err = s.LinkChanges(ctx); err != nil {
		return rows, err
	}
	if rows.Group, err = groupReach(ctx, s.read, groupID); err != nil {
		return rows, err
	}
	if rows.Nodes, err = s.Nodes(ctx); err != nil {
		return rows, err
	}
	if rows.Protocols, err = s.Protocols(ctx, 0); err != nil {
		return rows, err
	}
	if rows.Hosts, err = s.Hosts(ctx, 0); err != nil {
		return rows, err
	}
	if rows.Templates, err = s.ClientTemplates(ctx); err != nil {
		return rows, err
	}
	rows.Rules, err = s.ClientRules(ctx)
	return rows, err
}

// AwayNodes returns the ids of the nodes that are away at the time now, in order. Time alone makes
// a node go, so that no version tells of it.
func (s *Store) AwayNodes(ctx context.Context, now time.Time) ([]int64, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT id FROM nodes WHERE `+lastSeen+` < ? ORDER BY id`, millis(now.Add(-OfflineAfter)))
	return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
}

// RotateLink gives the subscription another link of its own. Its credentials stay, so that nobody
// is cut.
func (s *Subscription) RotateLink() { s.linkVersion++ }

// Used returns UsedBytes in two parts, of which applications show the sum beside the limit: client
// to node, and node to client. The first is exact where all nodes count a byte once.
func (s Subscription) Used() (up, down int64) {
	up = min(max(0, s.BytesUp-s.periodUp), s.UsedBytes)
	return up, s.UsedBytes - up
}
