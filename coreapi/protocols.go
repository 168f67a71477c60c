package coreapi

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"time"
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
	Status string          `json:"status" doc:"pending, active, failed, disabled, or unsupported where the node's Xray is too old for it; template for a template"`
	// Enabled is false for an inbound that is left out of its node's configuration.
	Enabled bool   `json:"enabled"`
	Note    string `json:"note"`
	// TemplateID is the template of which the inbound is one use; 0 for none. Config is the
	// template's, with Overrides put into it.
	TemplateID int64     `json:"templateId"`
	Overrides  Overrides `json:"overrides"`
}

// Overrides are what an inbound can have of its own beside its template, or what an edit
// changes. An empty one is as it is.
type Overrides struct {
	Listen     string `json:"listen,omitempty" doc:"An IP address."`
	Port       int    `json:"port,omitempty"`
	PublicHost string `json:"publicHost,omitempty" doc:"The host in links."`
	SNI        string `json:"sni,omitempty" doc:"The server name that clients ask for."`
	CertFile   string `json:"certFile,omitempty" doc:"With TLS: a path on the node."`
	KeyFile    string `json:"keyFile,omitempty" doc:"With TLS: a path on the node."`
	Dest       string `json:"dest,omitempty" doc:"With REALITY: HOST:PORT of the site that is borrowed."`
	Flow       string `json:"flow,omitempty" doc:"Of VLESS: xtls-rprx-vision, or none."`
}

// Merge returns o with what is set in more.
func (o Overrides) Merge(more Overrides) Overrides {
	return Overrides{
		Listen: cmp.Or(more.Listen, o.Listen), Port: cmp.Or(more.Port, o.Port), PublicHost: cmp.Or(more.PublicHost, o.PublicHost), SNI: cmp.Or(more.SNI, o.SNI),
		CertFile: cmp.Or(more.CertFile, o.CertFile), KeyFile: cmp.Or(more.KeyFile, o.KeyFile), Dest: cmp.Or(more.Dest, o.Dest), Flow: cmp.Or(more.Flow, o.Flow),
	}
}

// Template is an inbound that is used on many nodes. Each use is a Protocol of its own, which
// can override some of it.
type Template struct {
	ID        int64           `json:"id"`
	Name      string          `json:"name"`
	Note      string          `json:"note"`
	Protocol  string          `json:"protocol"`
	Listen    string          `json:"listen"`
	Port      int             `json:"port"`
	Config    json.RawMessage `json:"config,omitempty"` // as Protocol.Config: no answer has it
	Link      LinkHints       `json:"link"`
	Uses      int64           `json:"uses" doc:"How many inbounds have the template."`
	CreatedAt time.Time       `json:"createdAt" doc:"UTC"`
}

// ProtocolDetails is an inbound or a template, without its configuration.
type ProtocolDetails struct {
	Protocol
	Node     string          `json:"node,omitempty" doc:"The node's name."`
	Template string          `json:"template,omitempty" doc:"The template's name."`
	Summary  ProtocolSummary `json:"summary"`
	Groups   []string        `json:"groups,omitempty" doc:"The names of the groups that are on it."`
	Uses     *int64          `json:"uses,omitempty" doc:"Of a template: how many inbounds have it."`
}

// ProtocolSummary is what is told of an inbound instead of its object, which has private keys.
type ProtocolSummary struct {
	Transport string   `json:"transport,omitempty"`
	Security  string   `json:"security,omitempty" doc:"none, tls or reality; empty for MTProto"`
	SNI       string   `json:"sni,omitempty"`
	Borrows   string   `json:"borrows,omitempty" doc:"Of REALITY: the site whose TLS handshake is borrowed, and for which names."`
	PublicKey string   `json:"publicKey,omitempty" doc:"Of REALITY."`
	ShortIDs  []string `json:"shortIds,omitempty" doc:"Of REALITY."`
	Modes     []string `json:"modes,omitempty" doc:"Of MTProto."`
}

// ProtocolEdit says what of an inbound or a template is changed: the members that are there.
type ProtocolEdit struct {
	Tag       *string         `json:"tag,omitempty" doc:"The other tag, or the other name of a template."`
	Note      *string         `json:"note,omitempty"`
	Enabled   *bool           `json:"enabled,omitempty" doc:"Not of a template."`
	Inbound   json.RawMessage `json:"inbound,omitempty" doc:"Xray's own object, of the same protocol, in the place of the one of before."`
	Overrides Overrides       `json:"overrides,omitzero"`
}

// LinkHints has the parts of a client's link that are not in the inbound object.
type LinkHints struct {
	SNI  string `json:"sni,omitempty" doc:"The server name that clients send."`
	Flow string `json:"flow,omitempty" doc:"The flow of VLESS; empty for none."`
	// PublicHost is the host in links; empty for the node's address.
	PublicHost string `json:"publicHost,omitempty" doc:"The host in links; the node's address without it."`
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

// NewProtocol describes a new inbound: its native object, or only flags, or a template with
// what differs from it. Without a node it describes the template of that name.
type NewProtocol struct {
	Node     string          `json:"node,omitempty" doc:"Name or id of the node; missing for a new template."`
	Template string          `json:"template,omitempty" doc:"With a node: name or id of the template to use. Without one: the name of the new template."`
	Tag      string          `json:"tag,omitempty" doc:"The protocol and a number without it, such as vless-1."`
	Inbound  json.RawMessage `json:"inbound,omitempty" doc:"Xray's own object. Without it, the flags describe the inbound."`
	Flags    InboundFlags    `json:"flags"`
}

// InboundFlags are the flags that describe an inbound.
type InboundFlags struct {
	Protocol string `json:"protocol,omitempty" doc:"vless or mtproto; with a native object any protocol of Xray"`
	Listen   string `json:"listen,omitempty" doc:"An IP address."`
	Port     int    `json:"port,omitempty"`
	Security string `json:"security,omitempty" doc:"none, tls or reality. Of vless without it reality, on loopback none."`
	SNI      string `json:"sni,omitempty" doc:"The server name that clients send."`
	CertFile string `json:"certFile,omitempty" doc:"With tls: a path on the node."`
	KeyFile  string `json:"keyFile,omitempty" doc:"With tls: a path on the node."`
	Dest     string `json:"dest,omitempty" doc:"With reality: HOST:PORT of the site whose TLS handshake is used."`
	Flow     string `json:"flow,omitempty" doc:"xtls-rprx-vision, or none. Of vless without security xtls-rprx-vision."`

	// Only for mtproto.
	TLSDomains []string `json:"tlsDomains,omitempty" doc:"With mtproto: the sites that the TLS mode imitates."`
	Secure     bool     `json:"secure,omitempty" doc:"With mtproto: offer the dd mode."`
	Classic    bool     `json:"classic,omitempty" doc:"With mtproto: offer the plain mode."`
	Mask       string   `json:"mask,omitempty" doc:"With mtproto: HOST:PORT of the site that connections without a valid secret get."`
	AdTag      string   `json:"adTag,omitempty" doc:"With mtproto: 32 hex digits, from @MTProxybot."`
	PublicHost string   `json:"publicHost,omitempty" doc:"The host in links; the node's address without it."`
}

// AddProtocol adds an inbound to a node.
func (c *Client) AddProtocol(ctx context.Context, p NewProtocol) (ProtocolAdded, Change, error) {
	return change[ProtocolAdded](ctx, c, http.MethodPost, "/protocols", nil, p)
}

// Protocols returns the inbounds. The query may have node.
func (c *Client) Protocols(ctx context.Context, query url.Values) iter.Seq2[Protocol, error] {
	return list[Protocol](ctx, c, "/protocols", query)
}

// Protocol returns the inbound with that id or NODE/TAG, or the template of that name.
func (c *Client) Protocol(ctx context.Context, word string) (ProtocolDetails, error) {
	return call[ProtocolDetails](ctx, c, http.MethodGet, "/protocols/"+segment(word), nil, nil)
}

// EditProtocol changes an inbound, or a template and with it all inbounds that have it.
func (c *Client) EditProtocol(ctx context.Context, word string, edit ProtocolEdit) (ProtocolDetails, Change, error) {
	return change[ProtocolDetails](ctx, c, http.MethodPatch, "/protocols/"+segment(word), nil, edit)
}

// RotateProtocol gives a REALITY inbound, or a template, other keys.
func (c *Client) RotateProtocol(ctx context.Context, word string) (ProtocolDetails, Change, error) {
	return change[ProtocolDetails](ctx, c, http.MethodPost, "/protocols/"+segment(word)+"/rotate", nil, nil)
}

// Templates returns all templates.
func (c *Client) Templates(ctx context.Context) ([]Template, error) {
	return call[[]Template](ctx, c, http.MethodGet, "/templates", nil, nil)
}

// RemoveProtocol removes the inbound with that id, or with that NODE/TAG, or a template.
func (c *Client) RemoveProtocol(ctx context.Context, idOrNodeTag string) (Removed, Change, error) {
	return change[Removed](ctx, c, http.MethodDelete, "/protocols/"+segment(idOrNodeTag), nil, nil)
}
