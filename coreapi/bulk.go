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

// Bulk adds and changes users in one transaction.
func (c *Client) Bulk(ctx context.Context, users BulkUsers) (BulkDone, Change, error) {
	return change[BulkDone](ctx, c, http.MethodPost, "/bulk/users", nil, users)
}
