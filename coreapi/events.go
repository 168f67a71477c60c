package coreapi

import (
	"encoding/json"
	"time"
)

// EventKind says what has happened.
type EventKind string

// The kinds of events.
const (
	EventNodeOnline   EventKind = "node.online"   // a node speaks, and runs its configuration
	EventNodeDegraded EventKind = "node.degraded" // a node runs without some parts of its configuration; data: code
	EventNodeError    EventKind = "node.error"    // a node has reported an error; data: code
	EventNodeOffline  EventKind = "node.offline"  // nothing was heard of a node for a while; data: lastSeenAt
	// EventBudgetNear says that a node has moved the share of its budget at which Core warns; data: budgetBytes, usedBytes, action.
	EventBudgetNear EventKind = "node.budget_near"
	// EventBudgetReached says that a node has moved the bytes of its budget; data: budgetBytes, usedBytes, action.
	EventBudgetReached EventKind = "node.budget_reached"

	EventFirstConnected EventKind = "user.first_connected" // a node has seen a user online for the first time

	EventSubscriptionLimited   EventKind = "subscription.limited"    // its limit is used up; data: limitBytes, usedBytes
	EventSubscriptionLimitNear EventKind = "subscription.limit_near" // its limit is nearly used up; data: limitBytes, usedBytes
	EventSubscriptionExpired   EventKind = "subscription.expired"    // its end is over; data: expiresAt
	EventSubscriptionExpiring  EventKind = "subscription.expiring"   // its end comes near; data: expiresAt
	EventSubscriptionRenewed   EventKind = "subscription.renewed"    // it was limited or expired, and is let in again

	EventBackupFailed EventKind = "backup.failed" // a scheduled backup could not be made; data: error
	// EventWebhookTest is sent by a test of a webhook alone.
	EventWebhookTest EventKind = "webhook.test"
	// EventsLost is in a stream alone: events after the reader's cursor were deleted, or Core was
	// restored from a backup since. It has no id.
	EventsLost EventKind = "lost"
)

// EventKinds has all kinds of events that can be asked for.
var EventKinds = []EventKind{
	EventNodeOnline, EventNodeDegraded, EventNodeError, EventNodeOffline, EventBudgetNear, EventBudgetReached, EventFirstConnected,
	EventSubscriptionLimited, EventSubscriptionLimitNear, EventSubscriptionExpired, EventSubscriptionExpiring, EventSubscriptionRenewed, EventBackupFailed,
}

// Event is one thing that has happened. Each comes once.
type Event struct {
	ID             int64           `json:"id" doc:"Rises in the order in which events became known: a cursor."`
	At             time.Time       `json:"at"`
	Kind           EventKind       `json:"kind"`
	NodeID         int64           `json:"nodeId,omitempty"`
	Node           string          `json:"node,omitempty" doc:"The node's name at that time."`
	UserID         int64           `json:"userId,omitempty"`
	User           string          `json:"user,omitempty" doc:"The user's name at that time."`
	SubscriptionID int64           `json:"subscriptionId,omitempty"`
	Data           json.RawMessage `json:"data" doc:"An object whose members depend on the kind."`
}

// EventPage has events in the order in which they became known.
type EventPage struct {
	Events []Event `json:"events" nullable:"false"`
	Next   int64   `json:"next" doc:"The parameter after of the next page. The last page has fewer events than limit; later ones come after it."`
	Lost   bool    `json:"lost,omitempty" doc:"Events after the cursor were deleted before this page was read: they are too old, or too many, or Core was restored from a backup."`
}
