package coreapi

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
)

// Outbound is one outbound of a node and its traffic in bytes.
type Outbound struct {
	ID     int64  `json:"id"`
	NodeID int64  `json:"nodeId"`
	Tag    string `json:"tag"`
	// Config is Xray's outbound object; empty for a removed one. It may have passwords, so no
	// answer has it.
	Config           json.RawMessage `json:"config,omitempty"`
	Protocol         string          `json:"protocol,omitempty" doc:"Xray's name of what it is, such as freedom or wireguard."`
	Configured       bool            `json:"configured" doc:"False for a removed outbound of which only the traffic is left."`
	Disabled         bool            `json:"disabled,omitempty" doc:"True for an outbound that is left out of the node's configuration."`
	TrafficBytesUp   int64           `json:"trafficBytesUp"`
	TrafficBytesDown int64           `json:"trafficBytesDown"`
}

// OutboundAdded is the new outbound, without its configuration.
type OutboundAdded struct {
	Outbound
	Misfits
}

// NewOutbound describes an outbound.
type NewOutbound struct {
	Node   string          `json:"node" doc:"Name or id of the node."`
	Tag    string          `json:"tag,omitempty" doc:"The tag in the object without it."`
	Config json.RawMessage `json:"config" doc:"Xray's own object."`
}

// PutOutbound adds an outbound to a node, or replaces the one with the same tag.
func (c *Client) PutOutbound(ctx context.Context, o NewOutbound) (OutboundAdded, Change, error) {
	return change[OutboundAdded](ctx, c, http.MethodPost, "/outbounds", nil, o)
}

// Outbounds returns the outbounds. The query may have node.
func (c *Client) Outbounds(ctx context.Context, query url.Values) iter.Seq2[Outbound, error] {
	return list[Outbound](ctx, c, "/outbounds", query)
}

// Outbound returns an outbound of a node.
func (c *Client) Outbound(ctx context.Context, node, tag string) (Outbound, error) {
	return call[Outbound](ctx, c, http.MethodGet, "/nodes/"+segment(node)+"/outbounds/"+segment(tag), nil, nil)
}

// OutboundEdit says which members of an outbound are changed: those that are there.
type OutboundEdit struct {
	Tag     *string         `json:"tag,omitempty" doc:"Another tag. Rules of the routing that name the old one have to be changed too."`
	Enabled *bool           `json:"enabled,omitempty" doc:"False leaves the outbound out of the node's configuration."`
	Config  json.RawMessage `json:"config,omitempty" doc:"Xray's own object."`
}

// EditOutbound changes an outbound that the node has. Its traffic is kept.
func (c *Client) EditOutbound(ctx context.Context, node, tag string, edit OutboundEdit) (OutboundAdded, Change, error) {
	return change[OutboundAdded](ctx, c, http.MethodPatch, "/nodes/"+segment(node)+"/outbounds/"+segment(tag), nil, edit)
}

// RemoveOutbound takes an outbound out of a node's configuration.
func (c *Client) RemoveOutbound(ctx context.Context, node, tag string) (Removed, Change, error) {
	return change[Removed](ctx, c, http.MethodDelete, "/nodes/"+segment(node)+"/outbounds/"+segment(tag), nil, nil)
}
