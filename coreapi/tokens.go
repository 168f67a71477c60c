package coreapi

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Token is a token of the API, without its secret.
type Token struct {
	ID         int64      `json:"id"`
	Name       string     `json:"name"`
	Role       Role       `json:"role" enum:"read-only,support,operator,owner"`
	CreatedAt  time.Time  `json:"createdAt" doc:"UTC"`
	CreatedBy  string     `json:"createdBy" doc:"The name of the token that added it, or socket."`
	ExpiresAt  *time.Time `json:"expiresAt" doc:"UTC; null for never."`
	LastUsedAt *time.Time `json:"lastUsedAt" doc:"UTC, to the minute; null for never."`
}

// NewToken describes a token to add.
type NewToken struct {
	Name   string  `json:"name" doc:"1 to 100 bytes without control characters, and no number."`
	Role   Role    `json:"role" doc:"read-only, support, operator or owner"`
	Expiry *Expiry `json:"expiry,omitempty" doc:"Never without it."`
}

// TokenAdded has the secret of a token. Core stores only its hash, so it can't be shown again.
type TokenAdded struct {
	Token
	Secret string `json:"token" doc:"Goes into the header Authorization: Bearer TOKEN."`
	Pin    string `json:"pin,omitempty" doc:"The SHA-256 of Core's own certificate, in hex; missing where an authority vouches for it."`
}

// Caller is who sends a request.
type Caller struct {
	Name string `json:"name" doc:"The name of the token, or socket."`
	Role Role   `json:"role"`
}

// AuditEntry says who changed what.
type AuditEntry struct {
	ID        int64           `json:"id"`
	At        time.Time       `json:"at" doc:"UTC"`
	Who       string          `json:"who" doc:"The name of the token, or socket."`
	Role      Role            `json:"role"`
	Operation string          `json:"operation" doc:"Its operationId in the OpenAPI document."`
	Target    string          `json:"target" doc:"The path of the request, below /api/v1."`
	Details   json.RawMessage `json:"details" doc:"What the request said, without secrets."`
}

// AddToken adds a token.
func (c *Client) AddToken(ctx context.Context, token NewToken) (TokenAdded, error) {
	return call[TokenAdded](ctx, c, http.MethodPost, "/tokens", nil, token)
}

// Tokens returns all tokens.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return call[[]Token](ctx, c, http.MethodGet, "/tokens", nil, nil)
}

// RemoveToken removes the token of that name or id.
func (c *Client) RemoveToken(ctx context.Context, nameOrID string) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/tokens/"+segment(nameOrID), nil, nil)
}

// Caller returns who this client is for Core.
func (c *Client) Caller(ctx context.Context) (Caller, error) {
	return call[Caller](ctx, c, http.MethodGet, "/caller", nil, nil)
}

// Audit returns the audit log. The query may have since, who and sort.
func (c *Client) Audit(ctx context.Context, query url.Values) iter.Seq2[AuditEntry, error] {
	return list[AuditEntry](ctx, c, "/audit", query)
}
