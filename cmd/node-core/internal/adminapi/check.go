package adminapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodecheck"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/internal/fault"
	"nodeagent/telemt/service"
	"nodeagent/xray/versions"
)

// maxChecked bounds how many subscriptions a configuration has that is only checked: as many as
// an inbound has to have to be refused for their number.
const maxChecked = service.MaxClients + 1

// rows are what a node's configuration is made of.
type rows corestore.NodeRows

// findings returns the faults and warnings that the change adds, of those that every node finds. It
// looks at two configurations: the one with the outbounds that are enabled, because a rule can name a
// disabled one, and the one with all outbounds, because an operator can enable them later.
func (r rows) findings(change func(*rows), now time.Time) (nodecheck.Findings, error) {
	disabled := false
	found, err := r.compare(change, now, func(r *rows) {
		disabled = disabled || slices.ContainsFunc(r.Outbounds, func(o corestore.Outbound) bool { return o.Disabled })
	})
	if err != nil || !disabled {
		return found, err
	}
	all, err := r.compare(change, now, func(r *rows) {
		for i := range r.Outbounds {
			r.Outbounds[i].Disabled = false
		}
	})
	if err != nil {
		return found, err
	}
	for _, f := range all.Refused {
		if !slices.ContainsFunc(found.Refused, func(is *fault.Fault) bool { return is.Message == f.Message }) {
			found.Refused = append(found.Refused, f)
		}
	}
	for _, text := range all.Warnings {
		if !slices.Contains(found.Warnings, text) {
			found.Warnings = append(found.Warnings, text)
		}
	}
	return found, nil
}

// compare is findings of the configurations that complete makes of the rows before and after the change.
func (r rows) compare(change func(*rows), now time.Time, complete func(*rows)) (nodecheck.Findings, error) {
	r.Protocols, r.Outbounds = slices.Clone(r.Protocols), slices.Clone(r.Outbounds)
	all := func(r *rows) {
		for i := range r.Protocols {
			r.Protocols[i].Enabled = true // what a disabled inbound has, it serves later
		}
		complete(r)
	}
	all(&r)
	before, err := nodeconfig.Build(corestore.NodeRows(r))
	if err != nil {
		return nodecheck.Findings{}, nil //nolint:nilerr // a row that is older than its check: nothing can be compared, and nothing is refused over it
	}
	change(&r)
	all(&r)
	after, err := nodeconfig.Build(corestore.NodeRows(r))
	if err != nil {
		return nodecheck.Findings{}, badInput{err}
	}
	xray, _ := versions.OfAgent(r.Node.Agent) // the zero Version where it is not known
	return nodecheck.Added(before, after, xray, now), nil
}

// check returns an error where the change of the node's rows adds something to its configuration
// that every node would refuse, in the node's words. What is wrong already does not refuse it.
// The warnings are those that the change adds.
func (s *Server) check(ctx context.Context, nodeID int64, change func(*rows)) (warnings []string, err error) {
	found, err := s.findings(ctx, nodeID, change)
	if err != nil {
		return nil, err
	}
	if len(found.Refused) > 0 {
		return nil, refusal(found.Refused)
	}
	return found.Warnings, nil
}

// findings returns what the change of the node's rows adds to what every node would refuse and warn
// of.
func (s *Server) findings(ctx context.Context, nodeID int64, change func(*rows)) (found nodecheck.Findings, err error) {
	stored, err := s.store.NodeRows(ctx, nodeID)
	if err != nil {
		return found, err
	}
	r := rows(stored)
	r.Node.Enabled, r.Node.Maintenance, r.Node.OverBudget = true, false, false // what a disabled node has, it serves later
	r.Subscriptions = r.Subscriptions[:min(len(r.Subscriptions), maxChecked)]
	if len(r.Subscriptions) == 0 {
		r.Subscriptions = []corestore.Subscription{nodeconfig.Sample} // an inbound has to be good for clients that come later
	}
	return r.findings(change, time.Now())
}

// maxTold is how many refused parts an error names.
const maxTold = 10

// refusal is the error over what every node would refuse. The change was not stored.
func refusal(refused []*fault.Fault) error {
	var all []string
	for i, f := range refused {
		if i == maxTold {
			all = append(all, fmt.Sprintf("and %d more", len(refused)-i))
			break
		}
		all = append(all, f.Message)
	}
	return badInput{fmt.Errorf("the node would refuse it, so nothing was changed: %s", strings.Join(all, "; "))}
}

// checkSubscription returns warnings about what the nodes would refuse of a subscription that
// is let in. It refuses nothing: the other inbounds serve it.
func (s *Server) checkSubscription(ctx context.Context, nodes []int64) (warnings []string) {
	if some, err := s.store.ServesMTProto(ctx); err != nil || !some {
		return nil
	}
	subs, err := s.store.EnabledSubscriptions(ctx)
	if err != nil || subs <= service.MaxClients {
		return nil
	}
	for _, id := range nodes {
		protocols, err := s.store.Protocols(ctx, id)
		if err != nil {
			return warnings
		}
		for _, p := range protocols {
			if p.Protocol == "mtproto" {
				warnings = append(warnings, fmt.Sprintf("node %d, mtproto inbound %q: %d subscriptions are enabled, and telemt counts the traffic of at most %d clients of an inbound: those beyond are refused", id, p.Tag, subs, service.MaxClients))
			}
		}
	}
	return warnings
}
