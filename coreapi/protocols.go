package coreapi

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
)

// Protocol is one inbound of a node, which the node routes call a protocol.
type Protocol struct {
	ID       int64  `json:"id"`
	NodeID   int64  `json:"nodeId"`
	Tag      string `json:"tag"`
	Protocol string `json:"protocol"`
	Listen   string `json:"listen"`
	Port     int    `json:"port"`
	// Config is the inbound object of Xray or of the MTProto service, without clients. It has
	// private keys, so no answer has it.
	Config json.RawMessage `json:"config,omitempty"`
	Link   LinkHints       `json:"link"`
	Status string          `json:"status" doc:"pending, active, failed, or unsupported where the node's Xray is too old for it"`
}

// LinkHints has the parts of a client's link that are not in the inbound object.
type LinkHints struct {
	SNI  string `json:"sni,omitempty" doc:"The server name that clients send."`
	Flow string `json:"flow,omitempty" doc:"The flow of VLESS; empty for none."`
}

// ProtocolAdded is the new inbound, without its configuration.
type ProtocolAdded struct {
	Protocol
	// Borrows is the site whose TLS handshake a REALITY inbound borrows, and for which names;
	// empty for any other inbound.
	Borrows string `json:"borrows,omitempty"`
	Misfits
}

// Misfits are sentences about what a node's Xray does not take, or takes for something else
// than other versions; of a node only about what it does not take. There are none while Core
// does not know the node's version.
type Misfits struct {
	Texts []string `json:"warnings,omitempty"`
}

// Warnings returns the sentences.
func (m Misfits) Warnings() []string { return m.Texts }

// NewProtocol describes a new inbound: its native object, or only flags.
type NewProtocol struct {
	Node    string          `json:"node" doc:"Name or id of the node."`
	Tag     string          `json:"tag,omitempty" doc:"The protocol and a number without it, such as vless-1."`
	Inbound json.RawMessage `json:"inbound,omitempty" doc:"Xray's own object. Without it, the flags describe the inbound."`
	Flags   InboundFlags    `json:"flags"`
}

// InboundFlags are the flags that describe an inbound.
type InboundFlags struct {
	Protocol string `json:"protocol,omitempty" doc:"vless or mtproto; with a native object any protocol of Xray"`
	Listen   string `json:"listen,omitempty" doc:"An IP address."`
	Port     int    `json:"port,omitempty"`
	Security string `json:"security,omitempty" doc:"none, tls or reality"`
	SNI      string `json:"sni,omitempty" doc:"The server name that clients send."`
	CertFile string `json:"certFile,omitempty" doc:"With tls: a path on the node."`
	KeyFile  string `json:"keyFile,omitempty" doc:"With tls: a path on the node."`
	Dest     string `json:"dest,omitempty" doc:"With reality: HOST:PORT of the site whose TLS handshake is used."`
	Flow     string `json:"flow,omitempty" doc:"xtls-rprx-vision, or none"`

	// Only for mtproto.
	TLSDomains []string `json:"tlsDomains,omitempty" doc:"With mtproto: the sites that the TLS mode imitates."`
	Secure     bool     `json:"secure,omitempty" doc:"With mtproto: offer the dd mode."`
	Classic    bool     `json:"classic,omitempty" doc:"With mtproto: offer the plain mode."`
	Mask       string   `json:"mask,omitempty" doc:"With mtproto: HOST:PORT of the site that connections without a valid secret get."`
	AdTag      string   `json:"adTag,omitempty" doc:"With mtproto: 32 hex digits, from @MTProxybot."`
	PublicHost string   `json:"publicHost,omitempty" doc:"With mtproto: the host in links; the node's address without it."`
}

// AddProtocol adds an inbound to a node.
func (c *Client) AddProtocol(ctx context.Context, p NewProtocol) (ProtocolAdded, Change, error) {
	return change[ProtocolAdded](ctx, c, http.MethodPost, "/protocols", nil, p)
}

// Protocols returns the inbounds. The query may have node.
func (c *Client) Protocols(ctx context.Context, query url.Values) iter.Seq2[Protocol, error] {
	return list[Protocol](ctx, c, "/protocols", query)
}

// RemoveProtocol removes the inbound with that id, or with that NODE/TAG.
func (c *Client) RemoveProtocol(ctx context.Context, idOrNodeTag string) (Removed, Change, error) {
	return change[Removed](ctx, c, http.MethodDelete, "/protocols/"+segment(idOrNodeTag), nil, nil)
}
