package coreapi

import (
	"context"
	"net/http"
	"time"
)

// Group says which subscriptions are on which inbounds: the subscriptions that are in it, on
// the inbounds that it reaches.
type Group struct {
	ID            int64     `json:"id"`
	Name          string    `json:"name"`
	Note          string    `json:"note"`
	Everything    bool      `json:"everything" doc:"It reaches all inbounds of all nodes."`
	Nodes         []int64   `json:"nodes" doc:"The nodes of which it reaches all inbounds, also later ones."`
	Protocols     []int64   `json:"protocols" doc:"Single inbounds."`
	Subscriptions int64     `json:"subscriptions" doc:"How many are in it."`
	CreatedAt     time.Time `json:"createdAt" doc:"UTC"`
}

// GroupDetails is a group with the names of what it reaches.
type GroupDetails struct {
	Group
	NodeNames     []string `json:"nodeNames" nullable:"false"`
	ProtocolNames []string `json:"protocolNames" nullable:"false" doc:"NODE/TAG"`
}

// GroupReach says what a group is to reach. Nodes are named by name or id, inbounds by id or
// NODE/TAG.
type GroupReach struct {
	Note            *string  `json:"note,omitempty"`
	Everything      *bool    `json:"everything,omitempty"`
	AddNodes        []string `json:"addNodes,omitempty"`
	RemoveNodes     []string `json:"removeNodes,omitempty"`
	AddProtocols    []string `json:"addProtocols,omitempty"`
	RemoveProtocols []string `json:"removeProtocols,omitempty"`
}

// NewGroup describes a group to add.
type NewGroup struct {
	Name string `json:"name" doc:"1 to 100 bytes without control characters, and no number."`
	GroupReach
}

// GroupEdit says what of a group is changed: the members that are there.
type GroupEdit struct {
	Name *string `json:"name,omitempty" doc:"The other name."`
	GroupReach
}

// AddGroup adds a group.
func (c *Client) AddGroup(ctx context.Context, group NewGroup) (GroupDetails, error) {
	return call[GroupDetails](ctx, c, http.MethodPost, "/groups", nil, group)
}

// Groups returns all groups.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	return call[[]Group](ctx, c, http.MethodGet, "/groups", nil, nil)
}

// Group returns the group of that name or id.
func (c *Client) Group(ctx context.Context, nameOrID string) (GroupDetails, error) {
	return call[GroupDetails](ctx, c, http.MethodGet, "/groups/"+segment(nameOrID), nil, nil)
}

// EditGroup changes a group.
func (c *Client) EditGroup(ctx context.Context, nameOrID string, edit GroupEdit) (GroupDetails, Change, error) {
	return change[GroupDetails](ctx, c, http.MethodPatch, "/groups/"+segment(nameOrID), nil, edit)
}

// RemoveGroup removes a group that no subscription and no plan is in.
func (c *Client) RemoveGroup(ctx context.Context, nameOrID string) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/groups/"+segment(nameOrID), nil, nil)
}
