package coreapi

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// The states of a subscription.
const (
	Active   = "active"
	OnHold   = "on_hold" // it lets in, and its time begins with the first use
	Disabled = "disabled"
	Limited  = "limited" // its bytes of this period are used up
	Expired  = "expired"
)

// Statuses are the states of a subscription.
var Statuses = []string{Active, OnHold, Disabled, Limited, Expired}

// Subscription is the credentials with which a user connects to the inbounds that the
// subscription's group reaches, its terms, and the traffic that was counted for it, in bytes.
// The credentials are empty for the role read-only.
type Subscription struct {
	ID            int64  `json:"id"`
	UUID          string `json:"uuid"` // secret: the credential on Xray's inbounds
	UserID        int64  `json:"userId"`
	Enabled       bool   `json:"enabled"` // an operator's word; Status says whether the subscription lets in
	BytesUp       int64  `json:"bytesUp"`
	BytesDown     int64  `json:"bytesDown"`
	MTProtoSecret string `json:"mtprotoSecret"` // secret: the credential on MTProto inbounds, 32 hex digits
	Status        string `json:"status"`
	Note          string `json:"note"`
	PlanID        int64  `json:"planId"` // that the terms were copied from; 0 for none
	Terms
	UsedBytes           int64      `json:"usedBytes" doc:"What counts for the limit of this period: up and down together, times the multiplier of each node."`
	ExtraBytes          int64      `json:"extraBytes" doc:"What this period has beside limitBytes."`
	PeriodStart         *time.Time `json:"periodStart"`         // when the count of the period was reset last, UTC; nil for never
	ExpiresAt           *time.Time `json:"expiresAt"`           // UTC; nil for never, or for the first use that has not come
	ExpiresAfterSeconds int64      `json:"expiresAfterSeconds"` // from the first use; 0 where the end is fixed
	FirstUsedAt         *time.Time `json:"firstUsedAt"`         // UTC; kept only with ExpiresAfterSeconds
	StartsBy            *time.Time `json:"startsBy" doc:"When expiresAfterSeconds begin without a use; null for never."`
	CreatedAt           time.Time  `json:"createdAt"`          // UTC
	UserName            string     `json:"userName,omitempty"` // in lists alone
	// Credentials are what is not derived from the UUID, of a subscription that was imported. Secret.
	Credentials []Credential `json:"credentials,omitempty"`
}

// SubscriptionDetails is a subscription with its links to the inbounds of all registered
// nodes.
type SubscriptionDetails struct {
	Subscription
	URL     string   `json:"url" doc:"The own link of the subscription, which applications fetch. It is a secret."`
	Mirrors []string `json:"mirrors,omitempty" doc:"The same link at other addresses."`
	Links   []string `json:"links" nullable:"false"`
	NoLinks []string `json:"without,omitempty" doc:"Inbounds without a link and nodes that serve nobody, each with the reason."`
	// Fetched is when the own link was fetched last; nil for never.
	Fetched *Fetched `json:"fetched,omitempty" doc:"When the own link was fetched last; missing for never."`
	Devices int64    `json:"devices" doc:"How many devices have fetched the own link and have said which one they are."`
}

// NewSubscription describes a subscription to add.
type NewSubscription struct {
	User string `json:"user" doc:"Name or id of the user."`
	SubscriptionEdit
}

// SubscriptionEdit says what of a subscription is set: the members that are there.
type SubscriptionEdit struct {
	Plan *string `json:"plan,omitempty" doc:"Name or id of the plan whose terms are taken first; empty for none any more."`
	Note *string `json:"note,omitempty"`
	TermsEdit
}

// Extension says how far the end of a subscription is moved.
type Extension struct {
	Seconds int64 `json:"seconds" minimum:"1"`
}

// TopUp says how many bytes a subscription gets in the period that it is in.
type TopUp struct {
	Bytes int64 `json:"bytes" minimum:"1"`
}

// AddSubscription adds an enabled subscription with new credentials.
func (c *Client) AddSubscription(ctx context.Context, sub NewSubscription) (SubscriptionDetails, Change, error) {
	return change[SubscriptionDetails](ctx, c, http.MethodPost, "/subscriptions", nil, sub)
}

// Subscriptions returns the subscriptions. The query may have status, user, group, plan, search
// and sort.
func (c *Client) Subscriptions(ctx context.Context, query url.Values) iter.Seq2[Subscription, error] {
	return list[Subscription](ctx, c, "/subscriptions", query)
}

// Subscription returns a subscription and its links.
func (c *Client) Subscription(ctx context.Context, idOrUUID string) (SubscriptionDetails, error) {
	return call[SubscriptionDetails](ctx, c, http.MethodGet, "/subscriptions/"+segment(idOrUUID), nil, nil)
}

// EditSubscription changes the terms of a subscription.
func (c *Client) EditSubscription(ctx context.Context, idOrUUID string, edit SubscriptionEdit) (SubscriptionDetails, Change, error) {
	return change[SubscriptionDetails](ctx, c, http.MethodPatch, "/subscriptions/"+segment(idOrUUID), nil, edit)
}

// RotateSubscription gives a subscription other credentials.
func (c *Client) RotateSubscription(ctx context.Context, idOrUUID string) (SubscriptionDetails, Change, error) {
	return change[SubscriptionDetails](ctx, c, http.MethodPost, "/subscriptions/"+segment(idOrUUID)+"/rotate", nil, nil)
}

// RotateSubscriptionLink gives a subscription another link of its own.
func (c *Client) RotateSubscriptionLink(ctx context.Context, idOrUUID string) (SubscriptionDetails, Change, error) {
	return change[SubscriptionDetails](ctx, c, http.MethodPost, "/subscriptions/"+segment(idOrUUID)+"/rotate-link", nil, nil)
}

// ResetSubscription counts the bytes of a subscription's period anew.
func (c *Client) ResetSubscription(ctx context.Context, idOrUUID string) (Subscription, Change, error) {
	return change[Subscription](ctx, c, http.MethodPost, "/subscriptions/"+segment(idOrUUID)+"/reset", nil, nil)
}

// ExtendSubscription moves the end of a subscription: from now on where it is over, and from the end
// where it is not.
func (c *Client) ExtendSubscription(ctx context.Context, idOrUUID string, by Extension) (Subscription, Change, error) {
	return change[Subscription](ctx, c, http.MethodPost, "/subscriptions/"+segment(idOrUUID)+"/extend", nil, by)
}

// TopUpSubscription gives a subscription more bytes in the period that it is in.
func (c *Client) TopUpSubscription(ctx context.Context, idOrUUID string, by TopUp) (Subscription, Change, error) {
	return change[Subscription](ctx, c, http.MethodPost, "/subscriptions/"+segment(idOrUUID)+"/top-up", nil, by)
}

// DisableSubscription cuts a subscription off on every node.
func (c *Client) DisableSubscription(ctx context.Context, idOrUUID string) (Subscription, Change, error) {
	return change[Subscription](ctx, c, http.MethodPost, "/subscriptions/"+segment(idOrUUID)+"/disable", nil, nil)
}

// EnableSubscription lets a disabled subscription in again.
func (c *Client) EnableSubscription(ctx context.Context, idOrUUID string) (Subscription, Change, error) {
	return change[Subscription](ctx, c, http.MethodPost, "/subscriptions/"+segment(idOrUUID)+"/enable", nil, nil)
}

// RemoveSubscription removes a subscription for good.
func (c *Client) RemoveSubscription(ctx context.Context, idOrUUID string) (Removed, Change, error) {
	return change[Removed](ctx, c, http.MethodDelete, "/subscriptions/"+segment(idOrUUID), nil, nil)
}
