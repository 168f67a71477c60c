package coreapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// DefaultRouting is the id of the routing profile that a node gets when it is added.
const DefaultRouting = 1

// Routing is a routing profile: what the nodes that have it do with traffic before it leaves.
type Routing struct {
	ID             int64           `json:"id"`
	Name           string          `json:"name"`
	Note           string          `json:"note"`
	BlockPrivate   bool            `json:"blockPrivate" doc:"Outbounds of freedom reach no loopback, link-local and private destinations, unless they have finalRules of their own."`
	BlockTorrents  bool            `json:"blockTorrents" doc:"BitTorrent is blocked. Inbounds without sniffing get it."`
	BlockDomains   []string        `json:"blockDomains" nullable:"false" doc:"Xray's words for domains, such as geosite:category-ads and domain:example.com."`
	BlockIPs       []string        `json:"blockIps" nullable:"false" doc:"Xray's words for addresses, such as geoip:cn and 192.0.2.0/24."`
	DomainStrategy string          `json:"domainStrategy" doc:"AsIs, IPIfNonMatch or IPOnDemand; empty for AsIs."`
	Rules          json.RawMessage `json:"rules,omitempty" doc:"Xray's own list of rules, which come after what is blocked."`
	DNS            json.RawMessage `json:"dns,omitempty" doc:"Xray's own object."`
	Policy         json.RawMessage `json:"policy,omitempty" doc:"Xray's own object."`
	Nodes          []int64         `json:"nodes" nullable:"false" doc:"The nodes that have it."`
	CreatedAt      time.Time       `json:"createdAt" doc:"UTC"`
}

// RoutingDetails is a routing profile with the names of its nodes.
type RoutingDetails struct {
	Routing
	NodeNames []string `json:"nodeNames" nullable:"false"`
}

// RoutingEdit says what of a routing profile is set: the members that are there. Each list
// replaces the one of before.
type RoutingEdit struct {
	Name           *string          `json:"name,omitempty"`
	Note           *string          `json:"note,omitempty"`
	BlockPrivate   *bool            `json:"blockPrivate,omitempty"`
	BlockTorrents  *bool            `json:"blockTorrents,omitempty"`
	BlockDomains   *[]string        `json:"blockDomains,omitempty"`
	BlockIPs       *[]string        `json:"blockIps,omitempty"`
	DomainStrategy *string          `json:"domainStrategy,omitempty"`
	Rules          *json.RawMessage `json:"rules,omitempty" doc:"An empty list for none."`
	DNS            *json.RawMessage `json:"dns,omitempty" doc:"An empty object for none."`
	Policy         *json.RawMessage `json:"policy,omitempty" doc:"An empty object for none."`
	AddNodes       []string         `json:"addNodes,omitempty" doc:"Names or ids of nodes that get it, in the place of the one they have."`
	RemoveNodes    []string         `json:"removeNodes,omitempty" doc:"Names or ids of nodes that have none any more."`
}

// NewRouting describes a routing profile to add.
type NewRouting struct {
	RoutingEdit
}

// AddRouting adds a routing profile.
func (c *Client) AddRouting(ctx context.Context, routing NewRouting) (RoutingDetails, Change, error) {
	return change[RoutingDetails](ctx, c, http.MethodPost, "/routing-profiles", nil, routing)
}

// Routings returns all routing profiles.
func (c *Client) Routings(ctx context.Context) ([]Routing, error) {
	return call[[]Routing](ctx, c, http.MethodGet, "/routing-profiles", nil, nil)
}

// Routing returns the routing profile of that name or id.
func (c *Client) Routing(ctx context.Context, nameOrID string) (RoutingDetails, error) {
	return call[RoutingDetails](ctx, c, http.MethodGet, "/routing-profiles/"+segment(nameOrID), nil, nil)
}

// EditRouting changes a routing profile.
func (c *Client) EditRouting(ctx context.Context, nameOrID string, edit RoutingEdit) (RoutingDetails, Change, error) {
	return change[RoutingDetails](ctx, c, http.MethodPatch, "/routing-profiles/"+segment(nameOrID), nil, edit)
}

// RemoveRouting removes a routing profile that no node has.
func (c *Client) RemoveRouting(ctx context.Context, nameOrID string) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/routing-profiles/"+segment(nameOrID), nil, nil)
}
