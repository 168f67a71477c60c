package adminapi

import (
	"encoding/json"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// Call names what is asked of Core.
type Call string

// The calls, with the types of their arguments and answers.
const (
	NodeAdd             Call = "node-add"             // NodeArgs → NodeAdded
	NodeCode            Call = "node-code"            // NodeArgs → NodeAdded
	NodeList            Call = "node-list"            // → []corestore.Node
	NodeShow            Call = "node-show"            // NodeArgs → NodeDetails
	NodeRemove          Call = "node-remove"          // NodeArgs → corestore.Node
	NodeMTProto         Call = "node-mtproto"         // MTProtoArgs → corestore.Node
	ProtocolAdd         Call = "protocol-add"         // ProtocolArgs → corestore.Protocol
	ProtocolList        Call = "protocol-list"        // NodeArgs → []corestore.Protocol
	ProtocolRemove      Call = "protocol-remove"      // IDArgs → Removed
	OutboundAdd         Call = "outbound-add"         // OutboundArgs → corestore.Outbound
	OutboundList        Call = "outbound-list"        // NodeArgs → []corestore.Outbound
	OutboundRemove      Call = "outbound-remove"      // OutboundArgs → Removed
	UserAdd             Call = "user-add"             // UserArgs → corestore.User
	UserList            Call = "user-list"            // → []corestore.User
	SubscriptionAdd     Call = "subscription-add"     // UserArgs → SubscriptionDetails
	SubscriptionShow    Call = "subscription-show"    // IDArgs → SubscriptionDetails
	SubscriptionList    Call = "subscription-list"    // → []corestore.Subscription
	SubscriptionDisable Call = "subscription-disable" // IDArgs → corestore.Subscription
	SubscriptionEnable  Call = "subscription-enable"  // IDArgs → corestore.Subscription
	SubscriptionRemove  Call = "subscription-remove"  // IDArgs → Removed
	UserRemove          Call = "user-remove"          // UserArgs → Removed
	NodeErrors          Call = "node-errors"          // ErrorArgs → []corestore.NodeError
	Usage               Call = "usage"                // LimitArgs → []corestore.UsageRow
	Events              Call = "events"               // LimitArgs → []corestore.EventRow
)

// NodeArgs name a node, by name or id.
type NodeArgs struct {
	Node     string        `json:"node"`
	Region   string        `json:"region,omitempty"`
	CodeLife time.Duration `json:"codeLife,omitempty"`
}

// MTProtoArgs set what a node's MTProto inbounds share.
type MTProtoArgs struct {
	Node    string          `json:"node"`
	Options json.RawMessage `json:"options"`
}

// NodeAdded has the one-time code of a node, which is told this once.
type NodeAdded struct {
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	Code      string `json:"code"`      // secret until used
	JoinToken string `json:"joinToken"` // secret until used
}

// NodeDetails is a node with its inbounds and outbounds.
type NodeDetails struct {
	corestore.Node
	Protocols []corestore.Protocol `json:"protocols"`
	Outbounds []corestore.Outbound `json:"outbounds"`
}

// ProtocolArgs describe an inbound: a native one, or the flags of a common one.
type ProtocolArgs struct {
	Node    string                  `json:"node"`
	Tag     string                  `json:"tag,omitempty"`
	Inbound json.RawMessage         `json:"inbound,omitempty"`
	Flags   nodeconfig.InboundFlags `json:"wish"` // the name is older than the field's; commands of another version send it
}

// OutboundArgs name or describe an outbound.
type OutboundArgs struct {
	Node   string          `json:"node"`
	Tag    string          `json:"tag,omitempty"`
	Config json.RawMessage `json:"config,omitempty"`
}

// UserArgs name a user, by name or id.
type UserArgs struct {
	User string `json:"user"`
}

// IDArgs name a row.
type IDArgs struct {
	ID string `json:"id"`
}

// LimitArgs bound an answer.
type LimitArgs struct {
	Limit int `json:"limit"`
}

// SubscriptionDetails is a subscription with its links, one for each inbound of
// each node that has registered.
type SubscriptionDetails struct {
	corestore.Subscription
	Links   []string `json:"links"`
	NoLinks []string `json:"without,omitempty"` // inbounds that have no link, and why
}

// ErrorArgs name a node, or none for all, and bound the answer.
type ErrorArgs struct {
	Node string `json:"node"`
	LimitArgs
}

// Removed says what is gone.
type Removed struct {
	Removed string `json:"removed"`
}
