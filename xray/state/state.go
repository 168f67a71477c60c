package state

import (
	"cmp"
	"encoding/json"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"nodeagent/internal/grant"
)

// State is everything that a worker runs, so that [Diff] can compare two states and lead from
// one to the other. Package parse makes a State from Core's document.
//
// Rules:
//
//   - A State is a value. Its maps and slices are shared by copies and are not changed once
//     the state is made. [State.After], [State.WithRouting] and [Inbound.Without] return
//     changed copies.
//   - The one exception is the slots, Client.Slot and Outbound.Slot: the daemon assigns
//     them after parsing and before the state is applied. Nothing reads them earlier. A client
//     that several states share has one slot in all of them.
//   - The key of an inbound in Inbounds is its Tag. Clients are sorted by Email, and an Email
//     appears once in the whole state.
//   - The objects of Xray (Config, Routing, DNS, Policy, Base) are in canonical form, so that
//     equal objects are equal bytes.
//   - The unexported views are decoded from Config and Routing. A function that changes these
//     texts drops the view or decodes it again.
//
// An example with one inbound and one client:
//
//	State{
//		Inbounds: map[string]Inbound{"in-1": {Tag: "in-1", Protocol: "vless", Config: …,
//			Clients: Clients{{Key: "alice@x", Email: "5f0c…", Account: …, Slot: 1}}}},
//		Outbounds: []Outbound{{Tag: "direct", Config: …, Slot: 2}},
//	}
type State struct {
	Inbounds  map[string]Inbound // by tag
	Outbounds []Outbound         // the first is the default; tags are unique
	Routing   json.RawMessage    // Xray's routing object; nil for none
	DNS       json.RawMessage    // Xray's dns object; nil for the host's resolver
	Policy    json.RawMessage    // Xray's policy object; nil for its defaults
	Base      Base

	routing *RoutingView // of Routing; nil where it was not decoded
}

// Base has the parts that cannot change while xray-core runs: another Base needs a new
// worker. Each member is Xray's object in canonical form, nil where the document has none.
type Base struct {
	Observatory      json.RawMessage `json:"observatory,omitzero"`
	BurstObservatory json.RawMessage `json:"burstObservatory,omitzero"`
}

// Inbound is an inbound with its clients.
type Inbound struct {
	Tag            string `json:"tag"`
	Protocol       string `json:"protocol"` // Xray's name, lower case
	NodeProtocolID int64  `json:"-"`        // Core's id of the inbound, for usage rows; 0 for none
	VPNProtocol    string `json:"-"`        // the protocol's name in session events
	// Config is Xray's object in canonical form. It has no clients, except accounts of SOCKS
	// and HTTP, and none of the members that Core adds, except trustedProxies, which the
	// worker reads.
	Config  json.RawMessage `json:"config"`
	Clients Clients         `json:"-"`
	// Unattributed are names of accounts that belong to no client. They are served, and
	// their bytes are counted only for the outbounds.
	Unattributed []string `json:"unattributed,omitzero"`

	view  *InboundView // of Config; nil where it was not decoded
	noted *Reading     // what Clients have, and may have more; nil where that is not known
	seen  *seen        // of Clients, as noted; nil where that is not known
	step  *step        // how Clients came from another list, if they are its result; nil where that is not known
}

// Clients are the clients of an inbound, sorted by Email, each Email once. Two sorted lists of
// a hundred thousand clients can be compared in one pass. Two states share the clients that are
// equal, as far as one was made from the other: then the pass compares pointers only.
type Clients []*Client

// Find returns the client with the Email, or nil.
func (c Clients) Find(email string) *Client {
	i, found := c.place(email)
	if !found {
		return nil
	}
	return c[i]
}

// place returns where the client with the Email is, or belongs.
func (c Clients) place(email string) (at int, is bool) {
	return slices.BinarySearchFunc(c, email, func(client *Client, email string) int { return strings.Compare(client.Email, email) })
}

// Values returns copies of the clients.
func (c Clients) Values() []Client {
	if c == nil {
		return nil
	}
	values := make([]Client, len(c))
	for i, client := range c {
		values[i] = *client
	}
	return values
}

// SameNames reports whether both lists have the same Emails.
func (c Clients) SameNames(others Clients) bool {
	return slices.EqualFunc(c, others, func(a, b *Client) bool { return a == b || a.Email == b.Email })
}

// NotIn yields the clients that others does not have with the same Email, in their order.
func (c Clients) NotIn(others Clients) iter.Seq[*Client] {
	return func(yield func(*Client) bool) {
		for _, client := range c {
			for len(others) > 0 && others[0] != client && others[0].Email < client.Email {
				others = others[1:]
			}
			if len(others) > 0 && (others[0] == client || others[0].Email == client.Email) {
				others = others[1:]
				continue
			}
			if !yield(client) {
				return
			}
		}
	}
}

// AreIn reports whether others has each of the clients with the same account.
func (c Clients) AreIn(others Clients) bool {
	for i := range c {
		for len(others) > 0 && others[0] != c[i] && others[0].Email < c[i].Email {
			others = others[1:]
		}
		if len(others) == 0 || others[0] != c[i] && (others[0].Email != c[i].Email || !slices.Equal(c[i].Account, others[0].Account)) {
			return false
		}
	}
	return true
}

// SortClients returns copies of the clients, sorted by Email. Where several have the same Email it
// keeps the last of them.
func SortClients(clients []Client) Clients {
	// A client has two hundred bytes, so indexes are sorted instead of clients.
	order := make([]int, len(clients))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(strings.Compare(clients[i].Email, clients[j].Email), cmp.Compare(i, j))
	})
	sorted := make([]Client, 0, len(clients))
	for n, i := range order {
		if n+1 == len(order) || clients[order[n+1]].Email != clients[i].Email {
			sorted = append(sorted, clients[i])
		}
	}
	out := make(Clients, len(sorted))
	for i := range sorted {
		out[i] = &sorted[i]
	}
	return out
}

// With returns the clients with others, which take the place of those with the same Email.
func (c Clients) With(others Clients) Clients {
	all := make(Clients, 0, len(c)+len(others))
	for _, other := range others {
		at, same := c.place(other.Email)
		all = append(append(all, c[:at]...), other)
		if same {
			at++
		}
		c = c[at:]
	}
	return append(all, c...)
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
	// Grant is the same for one client on all its inbounds; nil for no bound.
	Grant *grant.Grant `json:"grant,omitzero"`
	// Group is the same for one client on all its inbounds: the limits and the grant hold over
	// these inbounds together. It is empty for a client without both.
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
	Granted    bool // it came with a grant of its own; others may have the grant of their person
	Panel      bool // it came with members of a panel, which are not kept
	// Settled tells that the first text of the client that could be its key is its key, and is in
	// the client map: whatever else comes into the map, the client keeps its key.
	Settled bool
	Index   int // its place in the inbound's list
	// Shape is equal for clients that differ only in name and key.
	Shape uint64
	// SecretHash is equal for clients that have one secret; 0 for a protocol without.
	SecretHash uint64
	// UUIDHash is equal for clients that have one UUID; 0 for a protocol without.
	UUIDHash uint64
}

// and adds what another client has.
func (r *Reading) and(o Reading) {
	r.PrivateKey, r.Vision, r.Panel = r.PrivateKey || o.PrivateKey, r.Vision || o.Vision, r.Panel || o.Panel
}

// AnyClient reports whether one of the clients has a PrivateKey, Vision or Panel, whichever has
// looks at. It passes over the clients only if one may have it.
func (in Inbound) AnyClient(has func(Reading) bool) bool {
	if in.noted != nil && !has(*in.noted) {
		return false
	}
	return slices.ContainsFunc(in.Clients, func(c *Client) bool { return has(c.Reading) })
}

// WithClients returns the inbound with other clients: those that it has, or fewer, and come.
func (in Inbound) WithClients(clients, come Clients) Inbound {
	in.Clients, in.step = clients, nil
	in.seen.add(come)
	if in.noted != nil {
		noted := *in.noted
		for _, c := range come {
			noted.and(c.Reading)
		}
		in.noted = &noted
	}
	return in
}

// Limits bound what a client may do; zero means no limit.
type Limits struct {
	IPs                   int   `json:"limitIps,omitzero"`            // addresses at a time
	Connections           int   `json:"limitConnections,omitzero"`    // streams at a time
	RateUpBitsPerSecond   int64 `json:"rateUpBitsPerSecond,omitzero"` // client to node
	RateDownBitsPerSecond int64 `json:"rateDownBitsPerSecond,omitzero"`
}

// Outbound is an outbound.
type Outbound struct {
	Tag    string          `json:"tag"`
	Config json.RawMessage `json:"config"` // Xray's object in canonical form
	Slot   uint32          `json:"slot"`   // index in the counters file
}

// Equal reports whether the two bases have the same objects.
func (b Base) Equal(o Base) bool {
	return slices.Equal(b.Observatory, o.Observatory) && slices.Equal(b.BurstObservatory, o.BurstObservatory)
}

// Bounded reports whether the client has limits or a grant.
func (c *Client) Bounded() bool { return c.Limits != (Limits{}) || c.Grant != nil }

// Equal reports whether the worker needs no operation to go from one client to the other.
func (c *Client) Equal(o *Client) bool { return c.SameAccount(o) && c.SameBounds(o) }

// SameBounds reports whether two clients have equal limits and grants.
func (c *Client) SameBounds(o *Client) bool { return c.Limits == o.Limits && c.Grant.Equal(o.Grant) }

// SameAccount reports whether two clients of one Email differ in nothing but limits and grants.
func (c *Client) SameAccount(o *Client) bool {
	return c.Slot == o.Slot && slices.Equal(c.Account, o.Account)
}

func (o Outbound) equal(p Outbound) bool {
	return o.Tag == p.Tag && o.Slot == p.Slot && slices.Equal(o.Config, p.Config)
}

// DefaultOutbound returns the tag of the outbound for traffic that no rule matches, which is
// the first one; empty where there is no outbound.
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
