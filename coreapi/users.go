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
	ID        int64             `json:"id"`
	Name      string            `json:"name"`
	CreatedAt time.Time         `json:"createdAt" doc:"UTC"`
	Note      string            `json:"note"`
	Enabled   bool              `json:"enabled" doc:"False for a user none of whose subscriptions is let in."`
	Contact   map[string]string `json:"contact" doc:"Such as email and telegram."`
	Origin    string            `json:"origin,omitempty" doc:"Which panel the user was imported from, and as whom."`
}

// UserDetails is a user with the subscriptions.
type UserDetails struct {
	User
	Subscriptions []Subscription `json:"subscriptions" nullable:"false"`
}

// NewUser describes a user to add.
type NewUser struct {
	Name    string            `json:"name" doc:"1 to 100 bytes without control characters, and no number."`
	Note    *string           `json:"note,omitempty"`
	Contact map[string]string `json:"contact,omitempty" doc:"Such as email and telegram."`
}

// UserEdit says what of a user is changed: the members that are there.
type UserEdit struct {
	Name    *string           `json:"name,omitempty" doc:"The other name."`
	Note    *string           `json:"note,omitempty"`
	Enabled *bool             `json:"enabled,omitempty"`
	Contact map[string]string `json:"contact,omitempty" doc:"These contacts are set; an empty text removes one."`
}

// Erased says what the erasure of a user has made nameless.
type Erased struct {
	User   int64 `json:"user" doc:"The id."`
	Rows   int64 `json:"rows" doc:"Usage rows that name nobody now."`
	Events int64 `json:"events" doc:"Session events, which are deleted."`
}

// Removed says what was removed.
type Removed struct {
	Removed string `json:"removed"`
}

// AddUser adds a user.
func (c *Client) AddUser(ctx context.Context, user NewUser) (User, error) {
	return call[User](ctx, c, http.MethodPost, "/users", nil, user)
}

// Users returns the users. The query may have id, search, disabled and sort.
func (c *Client) Users(ctx context.Context, query url.Values) iter.Seq2[User, error] {
	return list[User](ctx, c, "/users", query)
}

// User returns the user of that name or id, with the subscriptions.
func (c *Client) User(ctx context.Context, nameOrID string) (UserDetails, error) {
	return call[UserDetails](ctx, c, http.MethodGet, "/users/"+segment(nameOrID), nil, nil)
}

// EditUser changes the user of that name or id.
func (c *Client) EditUser(ctx context.Context, nameOrID string, edit UserEdit) (User, Change, error) {
	return change[User](ctx, c, http.MethodPatch, "/users/"+segment(nameOrID), nil, edit)
}

// RemoveUser removes the user of that name or id, and the user's subscriptions.
func (c *Client) RemoveUser(ctx context.Context, nameOrID string) (Removed, Change, error) {
	return change[Removed](ctx, c, http.MethodDelete, "/users/"+segment(nameOrID), nil, nil)
}

// EraseUser removes a user, who may be removed already, and everything that names the user.
func (c *Client) EraseUser(ctx context.Context, nameOrID string) (Erased, Change, error) {
	return change[Erased](ctx, c, http.MethodPost, "/users/"+segment(nameOrID)+"/erase", nil, nil)
}
