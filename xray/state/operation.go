package state

import (
	"encoding/json"
	"maps"
	"slices"
)

// OpKind names an operation of the worker.
type OpKind string

// The operations. Each is done whole or not at all.
const (
	OpPutOutbound     OpKind = "put_outbound"    // add, or replace in one step
	OpRemoveOutbound  OpKind = "remove_outbound" // streams that use it go on
	OpDefaultOutbound OpKind = "default_outbound"
	OpSetRouting      OpKind = "set_routing"
	OpSetPolicy       OpKind = "set_policy" // for connections from now on
	OpSetDNS          OpKind = "set_dns"
	OpAddInbound      OpKind = "add_inbound"     // with no clients
	OpReplaceInbound  OpKind = "replace_inbound" // with all its clients; the new listener is up before the old one goes
	OpRemoveInbound   OpKind = "remove_inbound"  // its streams end
	OpReleaseInbound  OpKind = "release_inbound" // it listens no more, until it is replaced; its streams go on
	OpAddUsers        OpKind = "add_users"
	OpUpdateUsers     OpKind = "update_users" // other limits; their streams go on
	OpRemoveUsers     OpKind = "remove_users" // their streams end
)

// Operation is one step from a state towards another. Which members are set
// depends on the kind.
type Operation struct {
	Kind     OpKind          `json:"kind"`
	Tag      string          `json:"tag,omitzero"` // of the inbound or outbound
	Inbound  *Inbound        `json:"inbound,omitzero"`
	Outbound *Outbound       `json:"outbound,omitzero"`
	Users    []Client        `json:"users,omitzero"`
	Emails   []string        `json:"emails,omitzero"` // sorted
	Routing  json.RawMessage `json:"routing,omitzero"`
	Policy   json.RawMessage `json:"policy,omitzero"`
	// Checked tells that the users' members are known to be Xray's: a dry run has
	// tried their shapes, or they ran before.
	Checked bool            `json:"checked,omitzero"`
	DNS     json.RawMessage `json:"dns,omitzero"`
	// Runs tells a dry run that the node has this already, but for its clients: no check
	// of members, which may be younger, refuses it.
	Runs bool `json:"runs,omitzero"`
}

// After returns the state that o leads to from s. It is the meaning of the
// operations, against which Diff is tested and with which a rollback knows
// where it starts.
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
		in.Clients = nil
		s.Inbounds[o.Tag] = in
	case OpReplaceInbound:
		in := *o.Inbound
		in.Clients = SortClients(slices.Clone(o.Users))
		s.Inbounds[o.Tag] = in
	case OpRemoveInbound:
		delete(s.Inbounds, o.Tag)
	case OpReleaseInbound:
	case OpAddUsers, OpUpdateUsers:
		in := s.Inbounds[o.Tag]
		in.Clients = SortClients(slices.Concat(in.Clients, o.Users))
		s.Inbounds[o.Tag] = in
	case OpRemoveUsers:
		in := s.Inbounds[o.Tag]
		in.Clients = slices.DeleteFunc(slices.Clone(in.Clients), func(c Client) bool {
			_, gone := slices.BinarySearch(o.Emails, c.Email)
			return gone
		})
		s.Inbounds[o.Tag] = in
	}
	return s
}

// OutboundIndex returns the place of the outbound with that tag, -1 where there is none.
func (s State) OutboundIndex(tag string) int {
	return slices.IndexFunc(s.Outbounds, func(o Outbound) bool { return o.Tag == tag })
}
