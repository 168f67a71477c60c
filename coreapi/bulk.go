package coreapi

import (
	"context"
	"net/http"
)

// BulkUsers says which users are added and changed in one transaction: all of them, or none.
type BulkUsers struct {
	Create []BulkNewUser  `json:"create,omitempty"`
	Update []BulkUserEdit `json:"update,omitempty"`
}

// BulkNewUser is a user to add, with subscriptions.
type BulkNewUser struct {
	NewUser
	Subscriptions []SubscriptionEdit `json:"subscriptions,omitempty"`
}

// BulkUserEdit is a change of a user.
type BulkUserEdit struct {
	User string `json:"user" doc:"Name or id of the user."`
	UserEdit
}

// BulkDone is what a BulkUsers has done.
type BulkDone struct {
	Created []BulkCreated `json:"created" nullable:"false" doc:"In the order of the request."`
	Updated int           `json:"updated"`
}

// BulkCreated is a user who was added. Links are made for one subscription at a time.
type BulkCreated struct {
	ID            int64            `json:"id"`
	Name          string           `json:"name"`
	Subscriptions []BulkCredential `json:"subscriptions" nullable:"false"`
}

// BulkCredential has the credentials of a subscription.
type BulkCredential struct {
	ID            int64  `json:"id"`
	UUID          string `json:"uuid"`          // secret: the credential on Xray's inbounds
	MTProtoSecret string `json:"mtprotoSecret"` // secret: the credential on MTProto inbounds
}

// BulkSubscriptions says which subscriptions are added and changed in one transaction: all of them,
// or none.
type BulkSubscriptions struct {
	Create []NewSubscription      `json:"create,omitempty"`
	Update []BulkSubscriptionEdit `json:"update,omitempty"`
}

// BulkSubscriptionEdit is a change of a subscription.
type BulkSubscriptionEdit struct {
	Subscription string `json:"subscription" doc:"Id or UUID of the subscription."`
	Enabled      *bool  `json:"enabled,omitempty" doc:"Whether an operator lets it in."`
	SubscriptionEdit
}

// BulkSubscriptionsDone is what a BulkSubscriptions has done.
type BulkSubscriptionsDone struct {
	Created []BulkCredential `json:"created" nullable:"false" doc:"In the order of the request."`
	Updated int              `json:"updated"`
}

// BulkSubscriptions adds and changes subscriptions in one transaction.
func (c *Client) BulkSubscriptions(ctx context.Context, subs BulkSubscriptions) (BulkSubscriptionsDone, Change, error) {
	return change[BulkSubscriptionsDone](ctx, c, http.MethodPost, "/bulk/subscriptions", nil, subs)
}

// Bulk adds and changes users in one transaction.
func (c *Client) Bulk(ctx context.Context, users BulkUsers) (BulkDone, Change, error) {
	return change[BulkDone](ctx, c, http.MethodPost, "/bulk/users", nil, users)
}
