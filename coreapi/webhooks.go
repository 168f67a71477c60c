package coreapi

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Webhook is where Core sends events, without the key of the signature.
type Webhook struct {
	ID          int64       `json:"id"`
	URL         string      `json:"url"`
	Kinds       []EventKind `json:"kinds" nullable:"false" doc:"The kinds of events that are sent; empty for all."`
	State       string      `json:"state" enum:"ok,retrying,failing" doc:"retrying: the last try failed. failing: an event was given up, and none was delivered since."`
	Waiting     int64       `json:"waiting" doc:"How many events are not delivered yet, of the next 10,000 events of all kinds."`
	WaitingMore bool        `json:"waitingMore,omitempty" doc:"There are events behind those 10,000, so that more can wait."`
	OldestAt    *time.Time  `json:"oldestAt,omitempty" doc:"When the oldest of them happened, UTC."`
	Attempts    int64       `json:"attempts" doc:"How often the next event was tried."`
	NextAt      *time.Time  `json:"nextAt,omitempty" doc:"When it is tried again, UTC."`
	GivenUp     int64       `json:"givenUp" doc:"How many events were given up since the webhook was added."`
	LastError   string      `json:"lastError,omitempty"`
	LastErrorAt *time.Time  `json:"lastErrorAt,omitempty" doc:"UTC"`
	DeliveredAt *time.Time  `json:"deliveredAt,omitempty" doc:"When an event was delivered last, UTC."`
	CreatedAt   time.Time   `json:"createdAt" doc:"UTC"`
}

// NewWebhook describes a webhook to add.
type NewWebhook struct {
	URL    string      `json:"url" maxLength:"2000" doc:"https://HOST[:PORT]/PATH"`
	Kinds  []EventKind `json:"kinds,omitempty" maxItems:"50" doc:"The kinds of events to send; all without it."`
	Secret string      `json:"secret" maxLength:"200" doc:"The key of the signature: whsec_ and 24 to 64 bytes in base64."`
}

// WebhookTested says what came of a test.
type WebhookTested struct {
	ID       int64   `json:"id"`
	OK       bool    `json:"ok"`
	Error    string  `json:"error,omitempty"`
	Duration float64 `json:"seconds"`
}

// AddWebhook adds a webhook, to which the events are sent that happen from now on.
func (c *Client) AddWebhook(ctx context.Context, w NewWebhook) (Webhook, error) {
	return call[Webhook](ctx, c, http.MethodPost, "/webhooks", nil, w)
}

// Webhooks returns all webhooks.
func (c *Client) Webhooks(ctx context.Context) ([]Webhook, error) {
	return call[[]Webhook](ctx, c, http.MethodGet, "/webhooks", nil, nil)
}

// RemoveWebhook removes a webhook: no later event is sent to it.
func (c *Client) RemoveWebhook(ctx context.Context, id int64) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/webhooks/"+strconv.FormatInt(id, 10), nil, nil)
}

// TestWebhook sends an event of the kind EventWebhookTest to a webhook at once. After a success, the
// events that wait for another try are tried at once too.
func (c *Client) TestWebhook(ctx context.Context, id int64) (WebhookTested, error) {
	return call[WebhookTested](ctx, c, http.MethodPost, "/webhooks/"+strconv.FormatInt(id, 10)+"/test", nil, nil)
}
