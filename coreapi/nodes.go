package coreapi

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"

	"nodeagent/coreclient/wire"
)

// Node is one VPN host. Times are UTC.
type Node struct {
	ID              int64      `json:"id"`
	Name            string     `json:"name"`
	Region          string     `json:"region"`
	Host            string     `json:"host"`
	IP              string     `json:"ip"`
	Status          string     `json:"status" doc:"pending, online, offline, degraded or error"`
	SyncStatus      string     `json:"syncStatus" doc:"pending, synced or failed"`
	Revision        int64      `json:"revision" doc:"The revision that the node should run."`
	AppliedRevision *int64     `json:"appliedRevision" doc:"The revision that the node last said it runs."`
	LastSeenAt      *time.Time `json:"lastSeenAt"`
	LastError       *string    `json:"lastError"`
	LastErrorCode   *string    `json:"lastErrorCode"`
	LastErrorAt     *time.Time `json:"lastErrorAt"`
	RegisteredAt    *time.Time `json:"registeredAt"`
	// Agent has the versions of the node's agent and engines, as in
	// "node-agent/1.2.3 xray/26.7.28"; empty before the first heartbeat.
	Agent string `json:"agent"`
	// RefusedRevision is the newest revision of which the node said that it refuses parts, or
	// all of it; nil for none. Core's own: no answer has it.
	RefusedRevision *int64 `json:"-"`
	// TwoDaemonsAt is when an earlier daemon spoke again with the node's key after a later one
	// had: two daemons use the key. Nil for never.
	TwoDaemonsAt *time.Time `json:"twoDaemonsAt,omitempty"`
	// KeyOffered is set while the node is offered another key and has not used it yet.
	KeyOffered bool `json:"keyOffered,omitempty"`
	// MTProto is a JSON object with the options that all MTProto inbounds of the node
	// share; empty for none. It may contain passwords of upstreams, so no answer has it.
	MTProto         []byte `json:"-"`
	BudgetUsedBytes int64  `json:"budgetUsedBytes" doc:"What the node has moved in the month of its budget, up and down together; 0 without a budget."`
	OverBudget      bool   `json:"overBudget" doc:"The budget is used up."`
	NodeTerms
}

// Serves reports whether the node may let clients in.
func (n Node) Serves() bool {
	return n.ServesNobody() == ""
}

// ServesNobody says in a few words why the node lets no clients in; empty where it does.
func (n Node) ServesNobody() string {
	switch {
	case !n.Enabled:
		return "disabled"
	case n.Maintenance:
		return "maintenance"
	case n.OverBudget && n.BudgetAction == "stop":
		return "over budget"
	}
	return ""
}

// NodeTerms are what an operator says of a node.
type NodeTerms struct {
	Enabled bool `json:"enabled" doc:"False for a node that serves nobody."`
	// Maintenance is as if Enabled were false, for a while: Enabled is kept.
	Maintenance bool     `json:"maintenance" doc:"True for a node that serves nobody while somebody works on it."`
	Note        string   `json:"note"`
	Tags        []string `json:"tags" nullable:"false"`
	Address     string   `json:"address" doc:"The host name or IP address in links; empty for what the node told."`
	// Multiplier is how much a byte counts towards limits.
	Multiplier int64 `json:"multiplierThousandths" doc:"How much a byte counts towards limits, in thousandths."`
	// BudgetBytes is what the hosting provider allows a month, up and down together; 0 for no
	// bound. It begins anew on BudgetDay, or on the last day of a shorter month. BudgetAction is
	// what happens at its end.
	BudgetBytes  int64  `json:"budgetBytes" doc:"What the hosting provider allows a month, up and down together; 0 for no bound."`
	BudgetDay    int64  `json:"budgetDay" doc:"The day of the month on which the budget begins anew, or the last day of a shorter month."`
	BudgetAction string `json:"budgetAction" doc:"What happens at the end of the budget: warn or stop."`
	// BudgetWarnPercent is the share of the budget at which Core warns.
	BudgetWarnPercent int64 `json:"budgetWarnPercent" doc:"The share of the budget at which Core warns; 0 for never."`
	RoutingID         int64 `json:"routingId" doc:"The routing profile; 0 for none."`
}

// Check refuses terms that mean nothing.
func (t NodeTerms) Check() error {
	switch {
	case t.Multiplier < 0 || t.Multiplier > 1_000_000:
		return fmt.Errorf("multiplier %d thousandths: want 0 to 1,000,000", t.Multiplier)
	case t.BudgetBytes < 0:
		return fmt.Errorf("a budget of %d bytes: want 0 for none, or more", t.BudgetBytes)
	case t.BudgetDay < 1 || t.BudgetDay > 31:
		return fmt.Errorf("day %d of the month: want 1 to 31", t.BudgetDay)
	case t.BudgetWarnPercent < 0 || t.BudgetWarnPercent > 100:
		return fmt.Errorf("a warning at %d percent of the budget: want 1 to 100, or 0 for none", t.BudgetWarnPercent)
	case t.BudgetAction != "warn" && t.BudgetAction != "stop":
		return fmt.Errorf("action %q at the end of a budget is unknown: want warn or stop", t.BudgetAction)
	}
	return nil
}

// NodeEdit says what of a node is changed: the members that are there.
type NodeEdit struct {
	Name              *string  `json:"name,omitempty" doc:"The other name. It stands in links."`
	Region            *string  `json:"region,omitempty"`
	Note              *string  `json:"note,omitempty"`
	Address           *string  `json:"address,omitempty" doc:"In links; empty for what the node told."`
	Enabled           *bool    `json:"enabled,omitempty"`
	Multiplier        *int64   `json:"multiplierThousandths,omitempty"`
	BudgetBytes       *int64   `json:"budgetBytes,omitempty"`
	BudgetDay         *int64   `json:"budgetDay,omitempty"`
	BudgetAction      *string  `json:"budgetAction,omitempty" doc:"warn or stop"`
	BudgetWarnPercent *int64   `json:"budgetWarnPercent,omitempty" doc:"0 to 100"`
	Maintenance       *bool    `json:"maintenance,omitempty"`
	Routing           *string  `json:"routing,omitempty" doc:"Name or id of the routing profile; empty for none."`
	AddTags           []string `json:"addTags,omitempty"`
	RemoveTags        []string `json:"removeTags,omitempty"`
}

// NodeDetails is a node with its inbounds and outbounds, without their configurations.
type NodeDetails struct {
	Node
	Protocols []Protocol `json:"protocols" nullable:"false"`
	Outbounds []Outbound `json:"outbounds" nullable:"false"`
	Refused   []Refusal  `json:"refused,omitempty" doc:"The parts that the node does not run."`
	// Health is how the node said last that it is; nil where it never did.
	Health *NodeStatus `json:"health,omitempty"`
	Misfits
}

// NodeStatus is how a node said last that it is.
type NodeStatus struct {
	At time.Time `json:"at" doc:"When Core received it, UTC."`
	wire.StatusRequest
}

// NodeError is an error that a node reported.
type NodeError struct {
	NodeID  int64           `json:"nodeId"`
	At      time.Time       `json:"at" doc:"When Core received it, UTC."`
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Details json.RawMessage `json:"details" doc:"JSON object or null, as the node sent it: for example the tag, the port, warnings."`
}

// NewNode describes a node to add.
type NewNode struct {
	Name      string `json:"name" doc:"1 to 100 bytes without control characters, and no number."`
	Region    string `json:"region,omitempty" doc:"Free text."`
	ExpiresIn string `json:"expiresIn,omitempty" doc:"How long the code is good, such as 30m or 48h; a day without it."`
}

// NewCode describes another registration code of a node.
type NewCode struct {
	ExpiresIn string `json:"expiresIn,omitempty" doc:"How long the code is good, such as 30m or 48h; a day without it."`
}

// NodeAdded has the registration code of a node. Core stores only its hash, so it can't be
// shown again.
type NodeAdded struct {
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	Code      string `json:"code" doc:"Secret until used."`
	JoinToken string `json:"joinToken" doc:"Secret until used."`
}

// Announcement has the address under which nodes are to try this Core too; empty for none.
type Announcement struct {
	URL string `json:"url"`
}

// AddNode adds a node that is not registered yet.
func (c *Client) AddNode(ctx context.Context, node NewNode) (NodeAdded, error) {
	return call[NodeAdded](ctx, c, http.MethodPost, "/nodes", nil, node)
}

// AddNodeCode makes another registration code of a node.
func (c *Client) AddNodeCode(ctx context.Context, nameOrID string, code NewCode) (NodeAdded, error) {
	return call[NodeAdded](ctx, c, http.MethodPost, "/nodes/"+segment(nameOrID)+"/code", nil, code)
}

// Nodes returns the nodes.
func (c *Client) Nodes(ctx context.Context, query url.Values) iter.Seq2[Node, error] {
	return list[Node](ctx, c, "/nodes", query)
}

// Node returns a node with its inbounds, outbounds and what it said last.
func (c *Client) Node(ctx context.Context, nameOrID string) (NodeDetails, error) {
	return call[NodeDetails](ctx, c, http.MethodGet, "/nodes/"+segment(nameOrID), nil, nil)
}

// EditNode changes a node.
func (c *Client) EditNode(ctx context.Context, nameOrID string, edit NodeEdit) (Node, Change, error) {
	return change[Node](ctx, c, http.MethodPatch, "/nodes/"+segment(nameOrID), nil, edit)
}

// RemoveNode removes a node.
func (c *Client) RemoveNode(ctx context.Context, nameOrID string) (Node, error) {
	return call[Node](ctx, c, http.MethodDelete, "/nodes/"+segment(nameOrID), nil, nil)
}

// RotateNodeKey offers a node another auth key.
func (c *Client) RotateNodeKey(ctx context.Context, nameOrID string) (Node, error) {
	return call[Node](ctx, c, http.MethodPost, "/nodes/"+segment(nameOrID)+"/rotate", nil, nil)
}

// SetNodeMTProto sets what the MTProto inbounds of a node share. options is a JSON object.
func (c *Client) SetNodeMTProto(ctx context.Context, nameOrID string, options json.RawMessage) (Node, Change, error) {
	return change[Node](ctx, c, http.MethodPut, "/nodes/"+segment(nameOrID)+"/mtproto", nil, options)
}

// NodeErrors returns the errors that the nodes reported, the newest last. The query may have
// node and limit.
func (c *Client) NodeErrors(ctx context.Context, query url.Values) ([]NodeError, error) {
	return call[[]NodeError](ctx, c, http.MethodGet, "/node-errors", query, nil)
}

// Announce tells nodes the address under which they are to try this Core too; an empty one for
// none.
func (c *Client) Announce(ctx context.Context, address string) (wire.CoreIdentity, error) {
	return call[wire.CoreIdentity](ctx, c, http.MethodPut, "/announcement", nil, Announcement{URL: address})
}
