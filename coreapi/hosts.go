package coreapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Host is what one link to an inbound says in the place of the inbound's own. An inbound that
// has hosts has a link for each that is enabled.
type Host struct {
	ID         int64 `json:"id"`
	ProtocolID int64 `json:"protocolId"`
	HostTerms
	CreatedAt time.Time `json:"createdAt" doc:"UTC"`
}

// HostTerms are the members of a host that are edited. An empty one is the inbound's own.
type HostTerms struct {
	Enabled     bool   `json:"enabled"`
	Position    int64  `json:"position" doc:"Links are in this order."`
	Remark      string `json:"remark" doc:"The name of the link; {node}, {tag}, {region}, {user} and {address} are replaced."`
	Address     string `json:"address"`
	Port        int64  `json:"port"`
	SNI         string `json:"sni"`
	Fingerprint string `json:"fingerprint" doc:"Of the TLS handshake, such as chrome or firefox."`
	HTTPHost    string `json:"httpHost" doc:"The Host of WebSocket, HTTPUpgrade and XHTTP."`
	Path        string `json:"path" doc:"Of WebSocket, HTTPUpgrade and XHTTP."`
	ALPN        string `json:"alpn" doc:"With commas between."`
	Security    string `json:"security" doc:"none or tls, where a proxy such as a CDN stands before the inbound."`
}

// HostEdit says what of a host is set: the members that are there.
type HostEdit struct {
	Enabled     *bool   `json:"enabled,omitempty"`
	Position    *int64  `json:"position,omitempty"`
	Remark      *string `json:"remark,omitempty"`
	Address     *string `json:"address,omitempty"`
	Port        *int64  `json:"port,omitempty" minimum:"0" maximum:"65535"`
	SNI         *string `json:"sni,omitempty"`
	Fingerprint *string `json:"fingerprint,omitempty"`
	HTTPHost    *string `json:"httpHost,omitempty"`
	Path        *string `json:"path,omitempty"`
	ALPN        *string `json:"alpn,omitempty"`
	Security    *string `json:"security,omitempty" enum:",none,tls"`
}

// NewHost describes a host to add.
type NewHost struct {
	Protocol string `json:"protocol" doc:"Id of the inbound, or NODE/TAG."`
	HostEdit
}

// AddHost adds a host to an inbound.
func (c *Client) AddHost(ctx context.Context, host NewHost) (Host, error) {
	return call[Host](ctx, c, http.MethodPost, "/hosts", nil, host)
}

// Hosts returns the hosts of an inbound, or of all for an empty one, in the order of the links.
func (c *Client) Hosts(ctx context.Context, protocol string) ([]Host, error) {
	query := url.Values{}
	if protocol != "" {
		query.Set("protocol", protocol)
	}
	return call[[]Host](ctx, c, http.MethodGet, "/hosts", query, nil)
}

// Host returns the host of that id.
func (c *Client) Host(ctx context.Context, id int64) (Host, error) {
	return call[Host](ctx, c, http.MethodGet, "/hosts/"+strconv.FormatInt(id, 10), nil, nil)
}

// EditHost changes a host. Nodes do not know of hosts.
func (c *Client) EditHost(ctx context.Context, id int64, edit HostEdit) (Host, error) {
	return call[Host](ctx, c, http.MethodPatch, "/hosts/"+strconv.FormatInt(id, 10), nil, edit)
}

// RemoveHost removes a host.
func (c *Client) RemoveHost(ctx context.Context, id int64) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/hosts/"+strconv.FormatInt(id, 10), nil, nil)
}
