package coreapi

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

// Subscription is the credentials with which a user connects to every inbound of every node,
// and the traffic that was counted for them, in bytes.
type Subscription struct {
	ID        int64  `json:"id"`
	UUID      string `json:"uuid" doc:"Secret: the credential on Xray's inbounds. Empty for the role read-only."`
	UserID    int64  `json:"userId"`
	Enabled   bool   `json:"enabled"`
	BytesUp   int64  `json:"bytesUp"`
	BytesDown int64  `json:"bytesDown"`
	// MTProtoSecret is the credential on MTProto inbounds: 32 hex digits. Secret too.
	MTProtoSecret string `json:"mtprotoSecret" doc:"Secret: the credential on MTProto inbounds, 32 hex digits. Empty for the role read-only."`
}

// SubscriptionDetails is a subscription with its links to the inbounds of all registered
// nodes.
type SubscriptionDetails struct {
	Subscription
	Links   []string `json:"links" nullable:"false"`
	NoLinks []string `json:"without,omitempty" doc:"Inbounds without a link, and the reason."`
}

// NewSubscription describes a subscription to add.
type NewSubscription struct {
	User string `json:"user" doc:"Name or id of the user."`
}

// AddSubscription adds an enabled subscription with new credentials.
func (c *Client) AddSubscription(ctx context.Context, sub NewSubscription) (SubscriptionDetails, Change, error) {
	return change[SubscriptionDetails](ctx, c, http.MethodPost, "/subscriptions", nil, sub)
}

// Subscriptions returns the subscriptions.
func (c *Client) Subscriptions(ctx context.Context, query url.Values) iter.Seq2[Subscription, error] {
	return list[Subscription](ctx, c, "/subscriptions", query)
}

// Subscription returns a subscription and its links.
func (c *Client) Subscription(ctx context.Context, idOrUUID string) (SubscriptionDetails, error) {
	return call[SubscriptionDetails](ctx, c, http.MethodGet, "/subscriptions/"+segment(idOrUUID), nil, nil)
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
