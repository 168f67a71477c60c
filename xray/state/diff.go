package state

import (
	"encoding/json"
	"slices"
	"strings"

	"nodeagent/xray/rawjson"
)

// UsersPerOperation is the most users that one operation of [Diff] adds, changes or removes.
// It bounds the size of a frame to the worker and the time of one operation.
const UsersPerOperation = 2000

// Diff returns the operations that lead from one state to another. After each operation the
// worker runs a state that serves clients, so a failure in the middle leaves no broken
// worker. The order is:
//
//  1. Policy and DNS are set.
//  2. Outbounds are added and replaced, and the default outbound is chosen, before routing
//     and inbounds use them.
//  3. Routing is set.
//  4. Inbounds are removed, which frees their ports.
//  5. Inbounds are added and replaced, an inbound that frees a port before the one that
//     takes it. Of an inbound whose Config stays, only the clients that differ are removed,
//     then updated, then added: a removed client is gone before another one takes its UUID.
//  6. Outbounds are removed, which no rule names any more.
//
// For example, a new client on the inbound "in-1" is the single operation
// {OpAddUsers, Tag: "in-1", Users: the client}. Another port is one OpReplaceInbound with all
// clients of the inbound.
//
// The result depends only on the arguments. Diff ignores Base: where that differs a new
// worker has to run the state (see NeedsNewWorker).
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
	for _, tag := range byFreedPorts(from, to) {
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

// byFreedPorts returns the tags of to in an order in which an inbound that takes the port of
// another inbound comes after that one. Where inbounds exchange their ports in a circle
// there is no such order: two of them share a port for a moment.
func byFreedPorts(from, to State) []string {
	tags, changed := to.Tags(), map[string][]Binding{}
	for _, tag := range tags {
		if running, runs := from.Inbounds[tag]; !runs || !slices.Equal(running.Config, to.Inbounds[tag].Config) {
			changed[tag], _ = to.Inbounds[tag].Bindings() // check.Changed has refused bindings that cannot be read
		}
	}
	freed := map[string][]Binding{} // the bindings that a changed inbound has in from
	for tag := range changed {
		freed[tag], _ = from.Inbounds[tag].Bindings() // none where from has no such inbound
	}
	order, seen := make([]string, 0, len(to.Inbounds)), map[string]bool{}
	var visit func(tag string)
	visit = func(tag string) {
		if seen[tag] {
			return
		}
		seen[tag] = true
		for _, other := range tags {
			if other != tag && AnyOverlap(freed[other], changed[tag]) {
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

// AnyOverlap reports whether a binding of a overlaps with one of b.
func AnyOverlap(a, b []Binding) bool {
	return slices.ContainsFunc(a, func(x Binding) bool { return slices.ContainsFunc(b, x.Overlaps) })
}

// NeedsNewWorker returns why no operations of a running worker lead from from to to, for
// example "observatory changed". It returns "" where [Diff] leads there.
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

// SameWays reports whether new streams take the same ways in both states: by the same routing, DNS
// and outbounds.
func SameWays(a, b State) bool {
	// An adopted worker tells of a missing object as null.
	same := func(a, b json.RawMessage) bool {
		return slices.Equal(a, b) || (len(a) == 0 || string(a) == "null") && (len(b) == 0 || string(b) == "null")
	}
	return same(a.Routing, b.Routing) && same(a.DNS, b.DNS) &&
		len(a.Outbounds) == len(b.Outbounds) && a.DefaultOutbound() == b.DefaultOutbound() &&
		!slices.ContainsFunc(a.Outbounds, func(o Outbound) bool {
			i := b.OutboundIndex(o.Tag)
			return i < 0 || !slices.Equal(o.Config, b.Outbounds[i].Config)
		})
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
		return []Operation{{Kind: OpReplaceInbound, Tag: want.Tag, Inbound: &shell, Users: want.Clients.Values()}}
	default:
		gone, come := Apart(running, want)
		return UserOps(want.Tag, gone, come)
	}
}

// UsersTogether is the most clients that one operation of TogetherWithClients should have for a worker that
// takes over: it bounds the memory that both sides need besides for what they keep. Tests set fewer.
var UsersTogether = 10_000

// UsersAtOnce is UsersTogether for a worker that takes over from none, where time counts. It bounds the size of
// a frame to the worker and the time of one operation.
var UsersAtOnce = 100_000

// TogetherWithClients returns ops, the operations from an empty state to to, changed so that
// each inbound has its clients before it listens, and no operation has more than most of them. A new worker
// shares its ports with the worker before it from the moment when it listens, so it must know all clients then.
func TogetherWithClients(ops []Operation, to State, most int) []Operation {
	together := map[string]bool{}
	var all []Operation
	for _, op := range ops {
		clients := to.Inbounds[op.Tag].Clients
		switch {
		case op.Kind == OpAddInbound && len(clients) > most:
			together[op.Tag] = true
			all = append(all, Operation{Kind: OpPrepareInbound, Tag: op.Tag, Inbound: op.Inbound, Users: clients[:most].Values()})
			for some := range slices.Chunk(clients[most:], most) {
				all = append(all, Operation{Kind: OpAddUsers, Tag: op.Tag, Users: some.Values()})
			}
			all = append(all, Operation{Kind: OpOpenInbound, Tag: op.Tag, Inbound: op.Inbound})
		case op.Kind == OpAddInbound && len(clients) > 0:
			together[op.Tag] = true
			all = append(all, Operation{Kind: OpReplaceInbound, Tag: op.Tag, Inbound: op.Inbound, Users: clients.Values()})
		case op.Kind == OpAddUsers && together[op.Tag]:
		default:
			all = append(all, op)
		}
	}
	return all
}

// UserOps returns the operations that lead from the clients running to the clients want on
// the inbound tag. An operation has at most UsersPerOperation users.
func UserOps(tag string, running, want Clients) []Operation {
	var removed []string
	var added, updated Clients
	if len(running) == 0 {
		added, want = want, nil
	}
	for len(running) > 0 || len(want) > 0 {
		switch {
		case len(running) > 0 && len(want) > 0 && running[0] == want[0]:
			running, want = running[1:], want[1:]
		case len(want) == 0 || len(running) > 0 && running[0].Email < want[0].Email:
			removed = append(removed, running[0].Email)
			running = running[1:]
		case len(running) == 0 || want[0].Email < running[0].Email:
			added = append(added, want[0])
			want = want[1:]
		default:
			switch {
			case running[0].Equal(want[0]):
			case running[0].SameAccount(want[0]):
				updated = append(updated, want[0])
			default:
				removed = append(removed, running[0].Email)
				added = append(added, want[0])
			}
			running, want = running[1:], want[1:]
		}
	}
	var ops []Operation
	for emails := range slices.Chunk(removed, UsersPerOperation) {
		ops = append(ops, Operation{Kind: OpRemoveUsers, Tag: tag, Emails: emails})
	}
	for users := range slices.Chunk(updated, UsersPerOperation) {
		ops = append(ops, Operation{Kind: OpUpdateUsers, Tag: tag, Users: users.Values()})
	}
	for users := range slices.Chunk(added, UsersPerOperation) {
		ops = append(ops, Operation{Kind: OpAddUsers, Tag: tag, Users: users.Values()})
	}
	return ops
}

// HasAlready reports whether the operation would change nothing but clients: the state has
// the operation's outbound, routing, policy, DNS or inbound already. Names of clients in
// routing rules do not count. It reports false for the other kinds of operations.
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
	case OpAddInbound, OpReplaceInbound, OpPrepareInbound:
		return slices.Equal(s.Inbounds[op.Tag].Config, op.Inbound.Config)
	case OpRemoveOutbound, OpDefaultOutbound, OpOpenInbound, OpRemoveInbound, OpAddUsers, OpUpdateUsers, OpRemoveUsers:
	}
	return false
}

// RoutingWithoutUsers returns the routing without the users of its rules. The worker's names
// of clients in these rules differ as soon as a client is added or removed, though no rule
// has changed. It returns routing itself where it cannot be decoded.
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
