package state

import (
	"encoding/json"
	"maps"
	"slices"
)

// OpKind names an operation of the worker.
type OpKind string

// The operations. The worker does an operation completely or not at all.
const (
	OpPutOutbound     OpKind = "put_outbound"    // add, or replace in one step; streams of the old outbound go on
	OpRemoveOutbound  OpKind = "remove_outbound" // streams that use it go on
	OpDefaultOutbound OpKind = "default_outbound"
	OpSetRouting      OpKind = "set_routing" // for new streams
	OpSetPolicy       OpKind = "set_policy"  // for new connections
	OpSetDNS          OpKind = "set_dns"
	OpAddInbound      OpKind = "add_inbound"     // without clients
	OpReplaceInbound  OpKind = "replace_inbound" // with all its clients; the new listener listens before the old one is closed
	OpPrepareInbound  OpKind = "prepare_inbound" // with its first clients; it does not listen before OpOpenInbound
	OpOpenInbound     OpKind = "open_inbound"    // one that was prepared and has got all its clients
	OpRemoveInbound   OpKind = "remove_inbound"  // its streams end
	OpReleaseInbound  OpKind = "release_inbound" // its listener is closed until OpReplaceInbound; its streams go on
	OpAddUsers        OpKind = "add_users"
	OpUpdateUsers     OpKind = "update_users" // other limits or grants; the clients' streams go on
	OpRemoveUsers     OpKind = "remove_users" // the clients' streams end
)

// Operation is one step from a state towards another. [Diff] makes operations, the worker
// executes them, and [State.After] says what each means for a state. The daemon sends an
// operation to the worker as JSON. Nothing changes an operation once it is made.
//
// The kind decides which members are set:
//
//	OpPutOutbound                     Tag, Outbound
//	OpRemoveOutbound                  Tag
//	OpDefaultOutbound                 Tag, of an outbound that the state has
//	OpSetRouting, OpSetPolicy         Routing or Policy; nil removes the object
//	OpSetDNS                          DNS; nil is the host's resolver
//	OpAddInbound                      Tag, Inbound without Clients
//	OpReplaceInbound                  Tag, Inbound without Clients, Users: all its clients
//	OpPrepareInbound                  Tag, of which there is no inbound, Inbound without Clients, Users
//	OpOpenInbound                     Tag, Inbound without Clients
//	OpRemoveInbound, OpReleaseInbound Tag
//	OpAddUsers, OpUpdateUsers         Tag of the inbound, Users
//	OpRemoveUsers                     Tag of the inbound, Emails
type Operation struct {
	Kind     OpKind          `json:"kind"`
	Tag      string          `json:"tag,omitzero"` // of the inbound or outbound
	Inbound  *Inbound        `json:"inbound,omitzero"`
	Outbound *Outbound       `json:"outbound,omitzero"`
	Users    []Client        `json:"users,omitzero"`
	Emails   []string        `json:"emails,omitzero"` // Client.Email of each user, sorted
	Routing  json.RawMessage `json:"routing,omitzero"`
	Policy   json.RawMessage `json:"policy,omitzero"`
	DNS      json.RawMessage `json:"dns,omitzero"`
	// Runs is true where the node already runs the operation's object, clients aside. A dry
	// run then does not check its members: the check may be newer than the configuration.
	Runs bool `json:"runs,omitzero"`
}

// After returns the state that the operation o leads to from s; s stays as it is. It defines
// what the operations mean: Diff is tested against it, and the engine uses it to know the
// worker's state when an operation failed and the rollback begins.
func (s State) After(o Operation) State {
	s.Inbounds = maps.Clone(s.Inbounds)
	if s.Inbounds == nil {
		s.Inbounds = map[string]Inbound{}
	}
	s.Outbounds = slices.Clone(s.Outbounds)
	switch o.Kind {
	case OpPutOutbound:
		if i := s.OutboundIndex(o.Tag); i >= 0 {
			s.Outbounds[i] = *o.Outbound
		} else {
			s.Outbounds = append(s.Outbounds, *o.Outbound)
		}
	case OpRemoveOutbound:
		s.Outbounds = slices.DeleteFunc(s.Outbounds, func(p Outbound) bool { return p.Tag == o.Tag })
	case OpDefaultOutbound:
		if i := s.OutboundIndex(o.Tag); i > 0 {
			first := s.Outbounds[i]
			s.Outbounds = slices.Insert(slices.Delete(s.Outbounds, i, i+1), 0, first)
		}
	case OpSetRouting:
		s.Routing, s.routing = o.Routing, nil
	case OpSetPolicy:
		s.Policy = o.Policy
	case OpSetDNS:
		s.DNS = o.DNS
	case OpAddInbound:
		in := *o.Inbound
		in.Clients, in.noted, in.seen, in.step = nil, nil, nil, nil
		s.Inbounds[o.Tag] = in
	case OpReplaceInbound, OpPrepareInbound:
		in := *o.Inbound
		in.Clients, in.noted, in.seen, in.step = SortClients(o.Users), nil, nil, nil
		s.Inbounds[o.Tag] = in
	case OpRemoveInbound:
		delete(s.Inbounds, o.Tag)
	case OpReleaseInbound, OpOpenInbound:
	case OpAddUsers, OpUpdateUsers:
		in, come := s.Inbounds[o.Tag], SortClients(o.Users)
		in = in.WithClients(in.Clients.With(come), come)
		s.Inbounds[o.Tag] = in
	case OpRemoveUsers:
		in := s.Inbounds[o.Tag]
		in.Clients = slices.DeleteFunc(slices.Clone(in.Clients), func(c *Client) bool {
			_, removed := slices.BinarySearch(o.Emails, c.Email)
			return removed
		})
		s.Inbounds[o.Tag] = in
	}
	return s
}

// OutboundIndex returns the place of the outbound with the tag in Outbounds, -1 for none.
func (s State) OutboundIndex(tag string) int {
	return slices.IndexFunc(s.Outbounds, func(o Outbound) bool { return o.Tag == tag })
}
