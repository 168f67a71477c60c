package corestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"

	"nodeagent/coreapi"
)

// The states of a subscription.
const (
	Active   = coreapi.Active
	OnHold   = coreapi.OnHold
	Disabled = coreapi.Disabled
	Limited  = coreapi.Limited
	Expired  = coreapi.Expired
)

// Statuses are the states of a subscription.
var Statuses = coreapi.Statuses

// Subscription is the credentials with which a user connects to the inbounds that the
// subscription's group reaches, its terms, and the traffic that was counted for it, in bytes.
type Subscription struct {
	ID        int64  `json:"id"`
	UUID      string `json:"uuid"` // secret: the credential on Xray's inbounds
	UserID    int64  `json:"userId"`
	Enabled   bool   `json:"enabled"` // an operator's word; Status says whether the subscription lets in
	BytesUp   int64  `json:"bytesUp"`
	BytesDown int64  `json:"bytesDown"`
	// MTProtoSecret is the credential on MTProto inbounds: 32 hex digits. Secret too.
	MTProtoSecret string `json:"mtprotoSecret"`

	Status string `json:"status"` // of Statuses
	Note   string `json:"note"`
	PlanID int64  `json:"planId"` // that the terms were copied from; 0 for none
	Terms
	// UsedBytes are the bytes of this period as the limit counts them, up and down together: each
	// as often as the multiplier of its node says.
	UsedBytes int64 `json:"usedBytes"`
	// ExtraBytes are what this period has beside LimitBytes.
	ExtraBytes  int64      `json:"extraBytes"`
	PeriodStart *time.Time `json:"periodStart"` // when the count of the period was reset last, UTC; nil for never
	ExpiresAt   *time.Time `json:"expiresAt"`   // UTC; nil for never, or for the first use that has not come
	// ExpiresAfterSeconds is how long the subscription lives from its first use; 0 where its
	// end is fixed.
	ExpiresAfterSeconds int64      `json:"expiresAfterSeconds"`
	FirstUsedAt         *time.Time `json:"firstUsedAt"` // UTC; kept only with ExpiresAfterSeconds
	// StartsBy is when ExpiresAfterSeconds begin without a use, UTC; nil for never.
	StartsBy  *time.Time `json:"startsBy"`
	CreatedAt time.Time  `json:"createdAt"` // UTC
	// Credentials are what is not derived from the UUID. Secret too.
	Credentials []Credential `json:"credentials,omitempty"`
	// Grant is what the client may still move on the node of NodeRows; nil for no bound, and elsewhere.
	Grant *Grant `json:"-"`
	// UserName is set in lists alone.
	UserName string `json:"userName,omitempty"`

	periodUp, periodDown int64      // the counters when the period was reset
	periodEnds           *time.Time // nil for never
	usedRest             int64      // thousandths of a byte beside UsedBytes
	expired, limited     bool       // what the status says
	linkVersion          int64      // how often the subscription's own link was rotated
}

// Served reports whether nodes let the subscription in.
func (s Subscription) Served() bool { return served(s.Status) || s.Status == "" && s.Enabled }

// Rotate gives the subscription other credentials.
func (s *Subscription) Rotate() {
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	s.UUID, s.MTProtoSecret = uuid.NewString(), hex.EncodeToString(secret[:])
	s.Credentials = rotated(s.Credentials)
}

// known is what nodes know of a subscription.
type known struct {
	served                 bool
	uuid, secret, own      string
	user, group            int64
	ips, connections       int64
	rateUp, rateDown, self int64
}

func (s Subscription) known() known {
	if !s.Served() {
		return known{}
	}
	own, _ := encodeCredentials(s.Credentials) // texts and numbers always marshal
	return known{true, s.UUID, s.MTProtoSecret, own, s.UserID, s.GroupID, s.LimitIPs, s.LimitConnections, s.RateUpBitsPerSecond, s.RateDownBitsPerSecond, s.ID}
}

// AddSubscription adds a subscription for the user in the default group and without limits.
func (s *Store) AddSubscription(ctx context.Context, userID int64) (sub Subscription, nodes []int64, err error) {
	return s.InsertSubscription(ctx, Subscription{UserID: userID})
}

// InsertSubscription adds an enabled subscription with new credentials and raises the revision
// of the nodes that its group reaches. It returns those nodes. Of sub it takes the user, the
// note, the plan and the terms.
func (s *Store) InsertSubscription(ctx context.Context, sub Subscription) (_ Subscription, nodes []int64, err error) {
	defer s.enforcing.wake()
	err = s.inClientEdit(ctx, func(tx *sql.Tx) error {
		sub, nodes, err = s.insertSubscription(ctx, tx, sub, s.clock(), s.Timezone())
		return err
	})
	return sub, nodes, err
}

func (s *Store) insertSubscription(ctx context.Context, tx *sql.Tx, sub Subscription, now time.Time, zone *time.Location) (_ Subscription, nodes []int64, err error) {
	sub.Rotate()
	sub.Enabled, sub.CreatedAt = true, stored(now)
	if err := sub.settle(now, zone); err != nil {
		return sub, nil, err
	}
	if sub.ID, err = nextID(ctx, tx, "subscriptions"); err != nil {
		return sub, nil, err
	}
	args := append([]any{sub.ID, sub.UserID, sub.UUID, sub.MTProtoSecret, sub.Note, sub.PlanID, orNull(sub.ExpiresAt), sub.ExpiresAfterSeconds, sub.expired, millis(now), orNull(sub.periodEnds), orNull(sub.StartsBy)}, sub.values()...)
	err = tx.QueryRowContext(ctx, `INSERT INTO subscriptions (id, user_id, uuid, mtproto_secret, note, plan_id, expires_at, expires_after, expired, created_at, period_ends, starts_by, `+termColumns+`, user_enabled)
		SELECT `+strings.TrimSuffix(strings.Repeat("?, ", len(args)), ", ")+`, enabled FROM users WHERE id = ? RETURNING status`, append(args, sub.UserID)...).Scan(&sub.Status)
	if err != nil {
		return sub, nil, orNotFound(err, "user", sub.UserID)
	}
	if sub.Served() {
		nodes, err = s.raiseReached(ctx, tx, sub.GroupID)
	}
	return sub, nodes, err
}

// EditSubscription changes a subscription and returns it. Where the nodes are to know of the
// change, it raises the revision of those that the subscription's group reaches, before and
// after, and returns them. The error of edit changes nothing.
func (s *Store) EditSubscription(ctx context.Context, idOrUUID string, edit func(*Subscription) error) (sub Subscription, nodes []int64, err error) {
	defer s.enforcing.wake()
	err = s.inClientEdit(ctx, func(tx *sql.Tx) error {
		now, groups, err := s.editSubscriptions(ctx, tx, []SubscriptionEdit{{idOrUUID, edit}})
		if err != nil {
			return withoutRow(err)
		}
		for _, only := range now {
			sub = *only
		}
		nodes, err = s.raiseReached(ctx, tx, groups...)
		return err
	})
	return sub, nodes, err
}

// EnableSubscription enables or disables a subscription and returns it, and the nodes whose
// revision that raised.
func (s *Store) EnableSubscription(ctx context.Context, idOrUUID string, enabled bool) (sub Subscription, nodes []int64, err error) {
	return s.EditSubscription(ctx, idOrUUID, func(sub *Subscription) error {
		sub.Enabled = enabled
		return nil
	})
}

// RemoveSubscription deletes a subscription, raises the revision of the nodes that its group
// reaches and returns those nodes. The subscription's usage rows are kept, and the name of its
// user beside them.
func (s *Store) RemoveSubscription(ctx context.Context, idOrUUID string) (nodes []int64, err error) {
	err = s.inClientEdit(ctx, func(tx *sql.Tx) error {
		row := tx.QueryRowContext(ctx, `DELETE FROM subscriptions WHERE id = ? OR uuid = ? RETURNING `+subscriptionColumns, parseID(idOrUUID), idOrUUID)
		sub, err := scanSubscription(row)
		if err != nil {
			return orNotFound(err, "subscription", withoutUUID(idOrUUID))
		}
		var user string
		if err := tx.QueryRowContext(ctx, `SELECT name FROM users WHERE id = ?`, sub.UserID).Scan(&user); err != nil {
			return fmt.Errorf("find the user of subscription %d: %w", sub.ID, err)
		}
		if err := keepName(ctx, tx, "subscription", sub.ID, user, sub.UserID); err != nil {
			return err
		}
		if sub.Served() {
			nodes, err = s.raiseReached(ctx, tx, sub.GroupID)
		}
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
	return s.FindSubscriptions(ctx, SubscriptionFilter{})
}

// SubscriptionFilter says which subscriptions are listed: those that fit all of its members
// that are set.
type SubscriptionFilter struct {
	Status  string
	UserID  int64
	GroupID int64
	PlanID  int64
	// Search is a part of the user's name or of the note, or a whole UUID.
	Search string
	Limit  int // 0 for all; ListSubscriptions ignores it
}

var listedSubscriptions = listing[Subscription]{
	what: "subscriptions", table: "subscriptions s JOIN users u ON u.id = s.user_id", columns: subscriptionColumnsOf("s.") + ", u.name", key: "s.id",
	id: func(s Subscription) int64 { return s.ID },
	scan: func(row interface{ Scan(...any) error }) (Subscription, error) {
		var name string
		sub, err := scanSubscription(row, &name)
		sub.UserName = name
		return sub, err
	},
	orders: map[string]order[Subscription]{
		"user": {"u.name", func(s Subscription) any { return s.UserName }},
		// The index subscriptions_by_end has this very expression.
		"expires": {"coalesce(s.expires_at, 9223372036854775807)", func(s Subscription) any {
			if s.ExpiresAt == nil {
				return int64(math.MaxInt64)
			}
			return millis(*s.ExpiresAt)
		}},
	},
}

// FindSubscriptions returns subscriptions by their ids, each with the name of its user.
func (s *Store) FindSubscriptions(ctx context.Context, f SubscriptionFilter) ([]Subscription, error) {
	subs, _, err := s.ListSubscriptions(ctx, f, List{Limit: f.Limit})
	return subs, err
}

// ListSubscriptions returns a page of the subscriptions, each with the name of its user.
func (s *Store) ListSubscriptions(ctx context.Context, f SubscriptionFilter, list List) ([]Subscription, *Position, error) {
	where, args := f.where(list.Sort)
	return listedSubscriptions.page(ctx, s.read, list, where, args)
}

// where returns the conditions of the filter, and their arguments, for a list in an order.
func (f SubscriptionFilter) where(sort string) (where []string, args []any) {
	also := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	switch {
	case f.Status == Active && strings.TrimPrefix(sort, "-") == "user":
		// As an expression, the status has no index: SQLite would read all that are active, which nearly
		// all are, to sort them.
		also("s.status || '' = ?", f.Status)
	case f.Status != "":
		also("s.status = ?", f.Status)
	}
	if f.UserID != 0 {
		also("s.user_id = ?", f.UserID)
	}
	if f.GroupID != 0 {
		also("s.group_id = ?", f.GroupID)
	}
	if f.PlanID != 0 {
		also("s.plan_id = ?", f.PlanID)
	}
	if f.Search != "" {
		condition, words := has(f.Search, "u.name", "s.note")
		also("("+condition+" OR s.uuid = ?)", append(words, f.Search)...)
	}
	return where, args
}

// ServesMTProto reports whether a node has an inbound of MTProto.
func (s *Store) ServesMTProto(ctx context.Context) (some bool, err error) {
	return some, s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM node_protocols WHERE protocol = 'mtproto')`).Scan(&some)
}

// EnabledSubscriptions returns how many subscriptions nodes let in. It reads an index entry of each.
func (s *Store) EnabledSubscriptions(ctx context.Context) (n int, err error) {
	return n, s.read.QueryRowContext(ctx, `SELECT count(*) FROM subscriptions WHERE status IN ('active', 'on_hold')`).Scan(&n)
}

const subscriptionColumns = `id, uuid, user_id, enabled, bytes_up, bytes_down, mtproto_secret, status, note, plan_id, period_start, period_up, period_down,
	period_ends, used_bytes, used_rest, extra_bytes, expires_at, expires_after, first_used_at, starts_by, expired, limited, link_version, credentials, created_at, ` + termColumns

// subscriptionColumnsOf returns the columns of a table that has another name in the query, with
// its dot.
func subscriptionColumnsOf(table string) string {
	names := strings.Split(subscriptionColumns, ",")
	for i := range names {
		names[i] = table + strings.TrimSpace(names[i])
	}
	return strings.Join(names, ", ")
}

// scanSubscription reads subscriptionColumns, and what the query has behind them into more.
func scanSubscription(row interface{ Scan(...any) error }, more ...any) (s Subscription, err error) {
	var start, created int64
	var expires, first, ends, startsBy sql.NullInt64
	var credentials string
	to := append([]any{
		&s.ID, &s.UUID, &s.UserID, &s.Enabled, &s.BytesUp, &s.BytesDown, &s.MTProtoSecret, &s.Status, &s.Note, &s.PlanID,
		&start, &s.periodUp, &s.periodDown, &ends, &s.UsedBytes, &s.usedRest, &s.ExtraBytes, &expires, &s.ExpiresAfterSeconds, &first, &startsBy, &s.expired, &s.limited, &s.linkVersion, &credentials, &created,
	}, s.columns()...)
	if err = row.Scan(append(to, more...)...); err == nil {
		s.Credentials, err = decodeCredentials(credentials)
	}
	if start > 0 {
		s.PeriodStart = new(time.UnixMilli(start).UTC())
	}
	s.ExpiresAt, s.FirstUsedAt, s.CreatedAt = fromMillis(expires), fromMillis(first), time.UnixMilli(created).UTC()
	s.periodEnds, s.StartsBy = fromMillis(ends), fromMillis(startsBy)
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
