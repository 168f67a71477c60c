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
	UserList            Call = "user-list"            // UserListArgs → []corestore.User
	UserShow            Call = "user-show"            // UserArgs → UserDetails
	UserEdit            Call = "user-edit"            // UserArgs → corestore.User
	UserErase           Call = "user-erase"           // UserArgs → corestore.Erased
	GroupAdd            Call = "group-add"            // GroupArgs → GroupDetails
	GroupList           Call = "group-list"           // → []corestore.Group
	GroupShow           Call = "group-show"           // GroupArgs → GroupDetails
	GroupEdit           Call = "group-edit"           // GroupArgs → GroupDetails
	GroupRemove         Call = "group-remove"         // GroupArgs → Removed
	PlanAdd             Call = "plan-add"             // PlanArgs → corestore.Plan
	PlanList            Call = "plan-list"            // → []corestore.Plan
	PlanShow            Call = "plan-show"            // PlanArgs → corestore.Plan
	PlanEdit            Call = "plan-edit"            // PlanArgs → corestore.Plan
	PlanRemove          Call = "plan-remove"          // PlanArgs → Removed
	SubscriptionAdd     Call = "subscription-add"     // SubscriptionArgs → SubscriptionDetails
	SubscriptionEdit    Call = "subscription-edit"    // SubscriptionArgs → SubscriptionDetails
	SubscriptionRotate  Call = "subscription-rotate"  // IDArgs → SubscriptionDetails
	SubscriptionReset   Call = "subscription-reset"   // IDArgs → corestore.Subscription
	SubscriptionShow    Call = "subscription-show"    // IDArgs → SubscriptionDetails
	SubscriptionList    Call = "subscription-list"    // SubscriptionListArgs → []corestore.Subscription
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

// UserArgs names a user by name or id. UserAdd takes the name of the new user. UserAdd and
// UserEdit set what is not nil.
type UserArgs struct {
	User    string  `json:"user"`
	Name    *string `json:"name,omitempty"` // the other name; of UserEdit
	Note    *string `json:"note,omitempty"`
	Enabled *bool   `json:"enabled,omitempty"` // of UserEdit
	// Contact sets these contacts; an empty text removes one.
	Contact map[string]string `json:"contact,omitempty"`
}

// UserListArgs filters users.
type UserListArgs struct {
	Search   string `json:"search,omitempty"`
	Disabled bool   `json:"disabled,omitempty"`
}

// UserDetails is a user with the subscriptions.
type UserDetails struct {
	corestore.User
	Subscriptions []corestore.Subscription `json:"subscriptions"`
}

// TermsArgs set what is not nil, see corestore.Terms.
type TermsArgs struct {
	Group                 *string `json:"group,omitempty"` // name or id
	LimitBytes            *int64  `json:"limitBytes,omitempty"`
	Period                *string `json:"period,omitempty"`
	LimitIPs              *int64  `json:"limitIps,omitempty"`
	LimitConnections      *int64  `json:"limitConnections,omitempty"`
	RateUpBitsPerSecond   *int64  `json:"rateUpBitsPerSecond,omitempty"`
	RateDownBitsPerSecond *int64  `json:"rateDownBitsPerSecond,omitempty"`
	Expiry                *Expiry `json:"expiry,omitempty"`
}

// Expiry is when a subscription expires: at a time, or so many seconds from now, or from the first use. The
// zero value is never.
type Expiry struct {
	At           *time.Time `json:"at,omitempty"`
	AfterSeconds int64      `json:"afterSeconds,omitempty"`
	FromFirstUse bool       `json:"fromFirstUse,omitempty"`
}

// SubscriptionArgs names the user of a new subscription, or the subscription to edit, and what
// is set.
type SubscriptionArgs struct {
	ID   string  `json:"id,omitempty"`   // of SubscriptionEdit: id or UUID
	User string  `json:"user,omitempty"` // of SubscriptionAdd: name or id
	Plan *string `json:"plan,omitempty"` // whose terms are taken first; empty for none any more
	Note *string `json:"note,omitempty"`
	TermsArgs
}

// SubscriptionListArgs filters subscriptions.
type SubscriptionListArgs struct {
	Status string `json:"status,omitempty"`
	User   string `json:"user,omitempty"`
	Group  string `json:"group,omitempty"`
	Plan   string `json:"plan,omitempty"`
	Search string `json:"search,omitempty"`
	Limit  int    `json:"limit,omitempty"` // 0 for all
}

// PlanArgs names a plan by name or id, and sets what is not nil.
type PlanArgs struct {
	Plan string  `json:"plan"`
	Name *string `json:"name,omitempty"`
	Note *string `json:"note,omitempty"`
	TermsArgs
}

// GroupArgs names a group by name or id, and sets what is not nil. Nodes are named by name or
// id, inbounds by id or NODE/TAG.
type GroupArgs struct {
	Group           string   `json:"group"`
	Name            *string  `json:"name,omitempty"`
	Note            *string  `json:"note,omitempty"`
	Everything      *bool    `json:"everything,omitempty"`
	AddNodes        []string `json:"addNodes,omitempty"`
	RemoveNodes     []string `json:"removeNodes,omitempty"`
	AddProtocols    []string `json:"addProtocols,omitempty"`
	RemoveProtocols []string `json:"removeProtocols,omitempty"`
}

// GroupDetails is a group with the names of what it reaches.
type GroupDetails struct {
	corestore.Group
	NodeNames     []string `json:"nodeNames"`
	ProtocolNames []string `json:"protocolNames"` // NODE/TAG
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
