package coreapi

import (
	"context"
	"net/http"
	"net/url"

	"nodeagent/coreclient/wire"
)

// UsageRow is one stored usage row and the node that sent it. Its JSON members have the names
// of the node routes.
type UsageRow struct {
	NodeID int64 `json:"nodeId"`
	wire.UsageEntry
	Flagged bool `json:"flagged,omitempty" doc:"The row's minute is far from the time at which it came, or the subscription cannot have moved as much over the node since the row before."`
}

// EventRow is one stored session event and the node that sent it. Its JSON members have the
// names of the node routes.
type EventRow struct {
	NodeID int64 `json:"nodeId"`
	wire.SessionEvent
}

// Usage returns the newest usage rows, the newest first. The query may have limit.
func (c *Client) Usage(ctx context.Context, query url.Values) ([]UsageRow, error) {
	return call[[]UsageRow](ctx, c, http.MethodGet, "/usage", query, nil)
}

// Events returns the newest session events, the newest last. The query may have limit.
func (c *Client) Events(ctx context.Context, query url.Values) ([]EventRow, error) {
	return call[[]EventRow](ctx, c, http.MethodGet, "/events", query, nil)
}
