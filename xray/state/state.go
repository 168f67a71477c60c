package state

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// State is what a worker runs: the whole of it, so that two states can be
// compared and one can be reached from the other. A State is a value that
// nobody changes once it is made; the slots are set before it is applied.
type State struct {
	Inbounds  map[string]Inbound // by tag
	Outbounds []Outbound         // the first is the default; tags are unique
	Routing   json.RawMessage    // Xray's routing object; nil for none
	DNS       json.RawMessage    // Xray's object; nil for the host's own
	Policy    json.RawMessage    // Xray's object; nil for its defaults
	Base      Base

	routing *RoutingView // of Routing; nil where it was not decoded
}

// Base is what can't be changed while xray-core runs: another Base is another
// worker. Each member is Xray's own object, nil where absent.
type Base struct {
	Observatory      json.RawMessage `json:"observatory,omitzero"`
	BurstObservatory json.RawMessage `json:"burstObservatory,omitzero"`
}

// Inbound is one listener with its clients.
type Inbound struct {
	Tag            string `json:"tag"`
	Protocol       string `json:"protocol"` // Xray's name, lower case
	NodeProtocolID int64  `json:"-"`        // what its traffic is attributed to; 0 for none
	VPNProtocol    string `json:"-"`        // the name that session events carry
	// Config is Xray's own object in canonical form, without the clients and without
	// our members but for trustedProxies, which the worker reads.
	Config  json.RawMessage `json:"config"`
	Clients Clients         `json:"-"`
	// Unattributed are names of accounts that are no client's: their streams are
	// served, and counted under the outbounds alone.
	Unattributed []string `json:"unattributed,omitzero"`

	view *InboundView // of Config; nil where it was not decoded
}

// Clients are an inbound's, sorted by their unique Email: two lists of a hundred
// thousand are compared in one walk through memory.
type Clients []Client

// Find returns the client of that name, nil where there is none.
func (c Clients) Find(email string) *Client {
	i, found := slices.BinarySearchFunc(c, email, func(client Client, email string) int { return strings.Compare(client.Email, email) })
	if !found {
		return nil
	}
	return &c[i]
}

// SortClients returns the clients as Clients; of several of one Email the last stays.
func SortClients(clients []Client) Clients {
	// A client is two hundred bytes: its place in the order is moved instead.
	order := make([]int, len(clients))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(strings.Compare(clients[i].Email, clients[j].Email), cmp.Compare(i, j))
	})
	out := make(Clients, 0, len(clients))
	for n, i := range order {
		if n+1 == len(order) || clients[order[n+1]].Email != clients[i].Email {
			out = append(out, clients[i])
		}
	}
	return out
}

// Client is one user of one inbound.
type Client struct {
	// Key ties the client to Core's client map. It may be a password: it goes into no
	// log.
	Key  string `json:"-"`
	Tied bool   `json:"-"` // Key is in the client map
	// Name is the email that Core gave the client. Routing rules name the client by it.
	Name string `json:"-"`
	// Reading is what parse noticed about the client for the checks.
	Reading Reading `json:"-"`
	// Email is the client's name inside the worker: made by node-agent, opaque, lower
	// case, unique for (inbound, client, account). Another account is another Email, so
	// that a connection which authenticated with the old account belongs to no client.
	Email   string          `json:"email"`
	Account json.RawMessage `json:"account"` // Xray's client object with this Email
	Limits  Limits          `json:"limits,omitzero"`
	// Group is the same for one client on all its inbounds: the limits hold over these
	// inbounds together. It is empty for a client without limits.
	Group string `json:"group,omitzero"`
	Slot  uint32 `json:"slot"` // index in the counters file
	// The worker knows a client of a protocol without a user manager by the account's
	// name (SOCKS, HTTP) or by the addresses inside the tunnel (WireGuard).
	User      string         `json:"user,omitzero"`
	Addresses []netip.Prefix `json:"addresses,omitzero"`
}

// Reading is what parse noticed while it read one client. It saves the checks from
// decoding a hundred thousand clients again, and has no meaning for the worker.
type Reading struct {
	NoSecret   bool // the protocol wants a secret and the client has none
	PrivateKey bool // the peer came with its private key, which is not kept
	Vision     bool // the flow is xtls-rprx-vision, and the client is no VLESS reverse
	OddCase    bool // a member that node-agent reads is written in other upper or lower case
	// Shape is equal for clients that differ in name and key alone.
	Shape uint64
	// SecretHash is equal for clients that have one secret; 0 for a protocol without.
	SecretHash uint64
}

// Limits bound what a client may do; zero means no limit.
type Limits struct {
	IPs                   int   `json:"limitIps,omitzero"`            // addresses at a time
	Connections           int   `json:"limitConnections,omitzero"`    // streams at a time
	RateUpBitsPerSecond   int64 `json:"rateUpBitsPerSecond,omitzero"` // client to node
	RateDownBitsPerSecond int64 `json:"rateDownBitsPerSecond,omitzero"`
}

// Outbound is one way out.
type Outbound struct {
	Tag    string          `json:"tag"`
	Config json.RawMessage `json:"config"` // Xray's own object in canonical form
	Slot   uint32          `json:"slot"`   // of the counters file
}

// Equal reports whether both have the same objects.
func (b Base) Equal(o Base) bool {
	return slices.Equal(b.Observatory, o.Observatory) && slices.Equal(b.BurstObservatory, o.BurstObservatory)
}

// Equal reports whether a worker would treat both clients alike.
func (c *Client) Equal(o *Client) bool { return c.SameAccount(o) && c.Limits == o.Limits }

// SameAccount reports whether both clients have one account and one slot; their limits may
// differ.
func (c *Client) SameAccount(o *Client) bool {
	return c.Slot == o.Slot && slices.Equal(c.Account, o.Account)
}

func (o Outbound) equal(p Outbound) bool {
	return o.Tag == p.Tag && o.Slot == p.Slot && slices.Equal(o.Config, p.Config)
}

// DefaultOutbound is the tag of the outbound that takes what no rule names,
// empty where there is no outbound.
func (s State) DefaultOutbound() string {
	if len(s.Outbounds) == 0 {
		return ""
	}
	return s.Outbounds[0].Tag
}

// Tags returns the inbounds' tags, sorted.
func (s State) Tags() []string { return slices.Sorted(maps.Keys(s.Inbounds)) }

// Clients returns how many clients all inbounds have together.
func (s State) Clients() int {
	n := 0
	for _, in := range s.Inbounds {
		n += len(in.Clients)
	}
	return n
}
