package coreapi

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// User is a person who has subscriptions.
type User struct {
	ID        int64     `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"createdAt" doc:"UTC"`
}

// NewUser describes a user to add.
type NewUser struct {
	Name string `json:"name" doc:"1 to 100 bytes without control characters, and no number."`
}

// Removed says what was removed.
type Removed struct {
	Removed string `json:"removed"`
}

// AddUser adds a user.
func (c *Client) AddUser(ctx context.Context, user NewUser) (User, error) {
	return call[User](ctx, c, http.MethodPost, "/users", nil, user)
}

// Users returns the users.
func (c *Client) Users(ctx context.Context, query url.Values) iter.Seq2[User, error] {
	return list[User](ctx, c, "/users", query)
}

// User returns the user of that name or id.
func (c *Client) User(ctx context.Context, nameOrID string) (User, error) {
	return call[User](ctx, c, http.MethodGet, "/users/"+segment(nameOrID), nil, nil)
}

// RemoveUser removes the user of that name or id, and the user's subscriptions.
func (c *Client) RemoveUser(ctx context.Context, nameOrID string) (Removed, Change, error) {
	return change[Removed](ctx, c, http.MethodDelete, "/users/"+segment(nameOrID), nil, nil)
}
