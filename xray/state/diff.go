package state

import (
	"encoding/json"
	"slices"
	"strings"

	"nodeagent/xray/rawjson"
)

// UsersPerOperation bounds one frame to the worker and how long it works on one.
const UsersPerOperation = 2000

// Diff returns the operations that lead from one state to another, in an order
// in which every intermediate state serves: ways out come before what uses
// them and go after it, and a client leaves before another takes its UUID.
// It looks at nothing but its arguments. Base is not its business: where that
// differs, a new worker is needed (see NeedsNewWorker).
func Diff(from, to State) []Operation {
	var ops []Operation
	if !slices.Equal(from.Policy, to.Policy) {
		ops = append(ops, Operation{Kind: OpSetPolicy, Policy: to.Policy})
	}
	if !slices.Equal(from.DNS, to.DNS) {
		ops = append(ops, Operation{Kind: OpSetDNS, DNS: to.DNS})
	}
	ops = append(ops, putOutbounds(from, to)...)
	if !slices.Equal(from.Routing, to.Routing) {
		ops = append(ops, Operation{Kind: OpSetRouting, Routing: to.Routing})
	}
	for _, tag := range from.Tags() {
		if _, stays := to.Inbounds[tag]; !stays {
			ops = append(ops, Operation{Kind: OpRemoveInbound, Tag: tag})
		}
	}
	for _, tag := range portsFirst(from, to) {
		running, runs := from.Inbounds[tag]
		ops = append(ops, inboundOps(running, runs, to.Inbounds[tag])...)
	}
	for _, out := range from.Outbounds {
		if to.OutboundIndex(out.Tag) < 0 {
			ops = append(ops, Operation{Kind: OpRemoveOutbound, Tag: out.Tag})
		}
	}
	return ops
}

// portsFirst are the tags of to, in an order in which an inbound that takes the port of
// another comes after that one has moved away. Where they go in a circle, two listen on
// a port for a moment.
func portsFirst(from, to State) []string {
	tags, changed := to.Tags(), map[string][]Binding{}
	for _, tag := range tags {
		if running, runs := from.Inbounds[tag]; !runs || !slices.Equal(running.Config, to.Inbounds[tag].Config) {
			changed[tag], _ = to.Inbounds[tag].Bindings() // Parse has read them
		}
	}
	holders := map[string][]Binding{} // who changes, by where it listens until then
	for tag := range changed {
		holders[tag], _ = from.Inbounds[tag].Bindings() // none where it did not run
	}
	order, seen := make([]string, 0, len(to.Inbounds)), map[string]bool{}
	var visit func(tag string)
	visit = func(tag string) {
		if seen[tag] {
			return
		}
		seen[tag] = true
		for _, other := range tags {
			if other != tag && AnyOverlap(holders[other], changed[tag]) {
				visit(other)
			}
		}
		order = append(order, tag)
	}
	for _, tag := range tags {
		visit(tag)
	}
	return order
}

// AnyOverlap reports whether a binding of a and one of b would be in each other's way.
func AnyOverlap(a, b []Binding) bool {
	return slices.ContainsFunc(a, func(x Binding) bool { return slices.ContainsFunc(b, x.Overlaps) })
}

// NeedsNewWorker tells why to can't be reached from from in a running worker;
// empty where it can.
func NeedsNewWorker(from, to State) string {
	if from.Base.Equal(to.Base) {
		return ""
	}
	var changed []string
	for name, pair := range map[string][2][]byte{
		"observatory":      {from.Base.Observatory, to.Base.Observatory},
		"burstObservatory": {from.Base.BurstObservatory, to.Base.BurstObservatory},
	} {
		if !slices.Equal(pair[0], pair[1]) {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	return strings.Join(changed, ", ") + " changed"
}

func putOutbounds(from, to State) []Operation {
	var ops []Operation
	for i, out := range to.Outbounds {
		if j := from.OutboundIndex(out.Tag); j < 0 || !from.Outbounds[j].equal(out) {
			ops = append(ops, Operation{Kind: OpPutOutbound, Tag: out.Tag, Outbound: &to.Outbounds[i]})
		}
	}
	if to.DefaultOutbound() != "" && from.DefaultOutbound() != to.DefaultOutbound() {
		ops = append(ops, Operation{Kind: OpDefaultOutbound, Tag: to.DefaultOutbound()})
	}
	return ops
}

func inboundOps(running Inbound, runs bool, want Inbound) []Operation {
	shell := want
	shell.Clients = nil
	switch {
	case !runs:
		ops := []Operation{{Kind: OpAddInbound, Tag: want.Tag, Inbound: &shell}}
		return append(ops, UserOps(want.Tag, nil, want.Clients)...)
	case !slices.Equal(running.Config, want.Config) || !slices.Equal(running.Unattributed, want.Unattributed):
		return []Operation{{Kind: OpReplaceInbound, Tag: want.Tag, Inbound: &shell, Users: want.Clients}}
	default:
		return UserOps(want.Tag, running.Clients, want.Clients)
	}
}

// broughtTogether bounds the clients that an inbound comes up with, for one frame
// to the worker and its time.
const broughtTogether = 100_000

// TogetherWithClients lets inbounds come up with their clients in one operation. A new worker
// shares the ports of the one before from the first moment, and must know everybody
// then.
func TogetherWithClients(ops []Operation, to State) []Operation {
	together := map[string]bool{}
	var all []Operation
	for _, op := range ops {
		clients := to.Inbounds[op.Tag].Clients
		switch {
		case op.Kind == OpAddInbound && len(clients) > 0 && len(clients) <= broughtTogether:
			together[op.Tag] = true
			all = append(all, Operation{Kind: OpReplaceInbound, Tag: op.Tag, Inbound: op.Inbound, Users: clients})
		case op.Kind == OpAddUsers && together[op.Tag]:
		default:
			all = append(all, op)
		}
	}
	return all
}

// UserOps returns the operations that lead from the running clients of the inbound tag to
// the wanted ones: removals, then other limits, then new clients.
func UserOps(tag string, running, want Clients) []Operation {
	var gone []string
	var come, update []Client
	if len(running) == 0 {
		come, want = want, nil
	}
	for len(running) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0 || len(running) > 0 && running[0].Email < want[0].Email:
			gone = append(gone, running[0].Email)
			running = running[1:]
		case len(running) == 0 || want[0].Email < running[0].Email:
			come = append(come, want[0])
			want = want[1:]
		default:
			switch {
			case running[0].Equal(&want[0]):
			case running[0].SameAccount(&want[0]):
				update = append(update, want[0])
			default:
				gone = append(gone, running[0].Email)
				come = append(come, want[0])
			}
			running, want = running[1:], want[1:]
		}
	}
	var ops []Operation
	for emails := range slices.Chunk(gone, UsersPerOperation) {
		ops = append(ops, Operation{Kind: OpRemoveUsers, Tag: tag, Emails: emails})
	}
	for users := range slices.Chunk(update, UsersPerOperation) {
		ops = append(ops, Operation{Kind: OpUpdateUsers, Tag: tag, Users: users})
	}
	for users := range slices.Chunk(come, UsersPerOperation) {
		ops = append(ops, Operation{Kind: OpAddUsers, Tag: tag, Users: users})
	}
	return ops
}

// HasAlready tells whether the state has what the operation puts, but for clients.
func (s State) HasAlready(op Operation) bool {
	switch op.Kind {
	case OpPutOutbound:
		i := s.OutboundIndex(op.Tag)
		return i >= 0 && slices.Equal(s.Outbounds[i].Config, op.Outbound.Config)
	case OpSetRouting:
		return slices.Equal(RoutingWithoutUsers(s.Routing), RoutingWithoutUsers(op.Routing))
	case OpSetPolicy:
		return slices.Equal(s.Policy, op.Policy)
	case OpSetDNS:
		return slices.Equal(s.DNS, op.DNS)
	case OpAddInbound, OpReplaceInbound:
		return slices.Equal(s.Inbounds[op.Tag].Config, op.Inbound.Config)
	case OpRemoveOutbound, OpDefaultOutbound, OpRemoveInbound, OpAddUsers, OpUpdateUsers, OpRemoveUsers:
	}
	return false
}

// RoutingWithoutUsers is the routing without the clients that its rules name: their names are
// other ones as soon as a client comes or goes.
func RoutingWithoutUsers(routing json.RawMessage) json.RawMessage {
	members := map[string]json.RawMessage{}
	var rules []map[string]json.RawMessage
	if json.Unmarshal(routing, &members) != nil || json.Unmarshal(members["rules"], &rules) != nil {
		return routing
	}
	for _, rule := range rules {
		delete(rule, "user")
	}
	var err error
	if members["rules"], err = json.Marshal(rules); err == nil {
		routing, err = rawjson.Canonical(members)
	}
	if err != nil {
		return nil
	}
	return routing
}
