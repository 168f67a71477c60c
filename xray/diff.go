package xray

import (
	"slices"
	"strings"
)

// usersPerOperation bounds one frame to the worker, and with it how long a
// ping waits behind one.
const usersPerOperation = 10_000

// Diff returns the operations that lead from one state to another, in an order
// in which every intermediate state serves: ways out come before what uses
// them and go after it, and a client leaves before another takes its UUID.
// It looks at nothing but its arguments. Base is not its business: where that
// differs, a new worker is needed (see NeedsNewWorker).
func Diff(from, to State) []Operation {
	var ops []Operation
	ops = append(ops, putOutbounds(from, to)...)
	if !slices.Equal(from.Routing, to.Routing) {
		ops = append(ops, Operation{Kind: OpSetRouting, Routing: to.Routing})
	}
	for _, tag := range from.Tags() {
		if _, stays := to.Inbounds[tag]; !stays {
			ops = append(ops, Operation{Kind: OpRemoveInbound, Tag: tag})
		}
	}
	for _, tag := range to.Tags() {
		running, runs := from.Inbounds[tag]
		ops = append(ops, inboundOps(running, runs, to.Inbounds[tag])...)
	}
	for _, out := range from.Outbounds {
		if to.outboundIndex(out.Tag) < 0 {
			ops = append(ops, Operation{Kind: OpRemoveOutbound, Tag: out.Tag})
		}
	}
	return ops
}

// NeedsNewWorker tells why to can't be reached from from in a running worker;
// empty where it can.
func NeedsNewWorker(from, to State) string {
	if from.Base.equal(to.Base) {
		return ""
	}
	var changed []string
	for name, pair := range map[string][2][]byte{
		"dns":              {from.Base.DNS, to.Base.DNS},
		"policy":           {from.Base.Policy, to.Base.Policy},
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
		if j := from.outboundIndex(out.Tag); j < 0 || !from.Outbounds[j].equal(out) {
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
		return append(ops, userOps(want.Tag, nil, want.Clients)...)
	case !slices.Equal(running.Config, want.Config):
		users := make([]Client, 0, len(want.Clients))
		for _, email := range sortedKeys(want.Clients) {
			users = append(users, want.Clients[email])
		}
		return []Operation{{Kind: OpReplaceInbound, Tag: want.Tag, Inbound: &shell, Users: users}}
	default:
		return userOps(want.Tag, running.Clients, want.Clients)
	}
}

func userOps(tag string, running, want map[string]Client) []Operation {
	var gone []string
	for email, client := range running {
		if wanted, stays := want[email]; !stays || !client.equal(wanted) {
			gone = append(gone, email)
		}
	}
	var come []Client
	for email, client := range want {
		if runs, there := running[email]; !there || !runs.equal(client) {
			come = append(come, client)
		}
	}
	slices.Sort(gone)
	slices.SortFunc(come, func(a, b Client) int { return strings.Compare(a.Email, b.Email) })
	var ops []Operation
	for emails := range slices.Chunk(gone, usersPerOperation) {
		ops = append(ops, Operation{Kind: OpRemoveUsers, Tag: tag, Emails: emails})
	}
	for users := range slices.Chunk(come, usersPerOperation) {
		ops = append(ops, Operation{Kind: OpAddUsers, Tag: tag, Users: users})
	}
	return ops
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
