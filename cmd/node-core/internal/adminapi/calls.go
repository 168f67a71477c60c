package adminapi

import (
	"encoding/json"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// Call is the name of a call, and the path of its request.
type Call string

// The calls, with the types of their arguments and answers.
const (
	NodeAdd             Call = "node-add"             // NodeArgs → NodeAdded
	NodeCode            Call = "node-code"            // NodeArgs → NodeAdded
	NodeList            Call = "node-list"            // → []corestore.Node
	NodeShow            Call = "node-show"            // NodeArgs → NodeDetails
	NodeRemove          Call = "node-remove"          // NodeArgs → corestore.Node
	NodeMTProto         Call = "node-mtproto"         // MTProtoArgs → corestore.Node
	NodeRotate          Call = "node-rotate"          // NodeArgs → corestore.Node
	Announce            Call = "announce"             // AnnounceArgs → wire.CoreIdentity
	ProtocolAdd         Call = "protocol-add"         // ProtocolArgs → ProtocolAdded
	ProtocolList        Call = "protocol-list"        // NodeArgs → []corestore.Protocol
	ProtocolRemove      Call = "protocol-remove"      // IDArgs → Removed
	OutboundAdd         Call = "outbound-add"         // OutboundArgs → OutboundAdded
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
	Wait                Call = "wait"                 // WaitArgs → []NodeState
)

// NodeArgs names a node by name or id, and for NodeAdd and NodeCode says the rest.
type NodeArgs struct {
	Node     string        `json:"node"`
	Region   string        `json:"region,omitempty"`
	CodeLife time.Duration `json:"codeLife,omitempty"` // how long the code is good; 0 for a day
}

// AnnounceArgs has the address under which nodes are to try this Core too; empty for none.
type AnnounceArgs struct {
	URL string `json:"url"`
}

// MTProtoArgs has the options that a node's MTProto inbounds share.
type MTProtoArgs struct {
	Node    string          `json:"node"`
	Options json.RawMessage `json:"options"`
}

// NodeAdded has the registration code of a node. Core stores only its hash, so it can't be
// shown again.
type NodeAdded struct {
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	Code      string `json:"code"`      // secret until used
	JoinToken string `json:"joinToken"` // secret until used
}

// NodeDetails is a node with its inbounds and outbounds, without their configurations.
type NodeDetails struct {
	corestore.Node
	Protocols []corestore.Protocol `json:"protocols"`
	Outbounds []corestore.Outbound `json:"outbounds"`
	Refused   []corestore.Refusal  `json:"refused,omitempty"` // the parts that the node does not run
	// Health is how the node said last that it is; nil where it never did.
	Health *corestore.NodeStatus `json:"health,omitempty"`
	Misfits
}

// Misfits are sentences about what a node's Xray does not take, or takes for something else
// than other versions; of NodeShow only about what it does not take. There are none while Core
// does not know the node's version.
type Misfits struct {
	Texts []string `json:"warnings,omitempty"`
}

// Warnings returns the sentences.
func (m Misfits) Warnings() []string { return m.Texts }

// ProtocolAdded is the new inbound, without its configuration.
type ProtocolAdded struct {
	corestore.Protocol
	// Borrows is the site whose TLS handshake a REALITY inbound borrows, and for which names;
	// empty for any other inbound.
	Borrows string `json:"borrows,omitempty"`
	Misfits
}

// OutboundAdded is the new outbound, without its configuration.
type OutboundAdded struct {
	corestore.Outbound
	Misfits
}

// ProtocolArgs describes a new inbound: its native object, or only flags.
type ProtocolArgs struct {
	Node    string                  `json:"node"`
	Tag     string                  `json:"tag,omitempty"`
	Inbound json.RawMessage         `json:"inbound,omitempty"`
	Flags   nodeconfig.InboundFlags `json:"wish"` // "wish" is the name that all versions of the command send
}

// OutboundArgs names an outbound or, with Config, describes it.
type OutboundArgs struct {
	Node   string          `json:"node"`
	Tag    string          `json:"tag,omitempty"`
	Config json.RawMessage `json:"config,omitempty"`
}

// UserArgs names a user by name or id. UserAdd takes the name of the new user.
type UserArgs struct {
	User string `json:"user"`
}

// IDArgs names a row by its id; a subscription by its UUID too.
type IDArgs struct {
	ID string `json:"id"`
}

// LimitArgs bounds the number of rows of an answer; 0 means 1000.
type LimitArgs struct {
	Limit int `json:"limit"`
}

// SubscriptionDetails is a subscription with its links to the inbounds of all registered
// nodes.
type SubscriptionDetails struct {
	corestore.Subscription
	Links   []string `json:"links"`
	NoLinks []string `json:"without,omitempty"` // inbounds without a link, and the reason
}

// ErrorArgs names a node, or none for all, and bounds the answer.
type ErrorArgs struct {
	Node string `json:"node"`
	LimitArgs
}

// Removed says what was removed.
type Removed struct {
	Removed string `json:"removed"`
}
