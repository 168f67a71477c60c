package nodeconfig

import (
	"fmt"
	"iter"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/share"
)

// Way is how the clients of one subscription reach one inbound, or why they do not.
type Way struct {
	Node     corestore.Node
	Protocol corestore.Protocol
	Endpoint *share.Endpoint // nil for MTProto, and where none can be told
	Links    []string
	// Reason says why there is no link. It is for operators. It is empty where there are links, and
	// where the node is not registered.
	Reason string
}

// Plan is how every subscription of a group reaches the inbounds that the group is on: everything
// that is the same for all of them, so that reading the inbounds is done once. It does not change.
type Plan struct{ routes []route }

// route is one way without the subscription's credentials.
type route struct {
	node     corestore.Node
	protocol corestore.Protocol
	host     *corestore.Host // in the place of the inbound's own; nil for none
	endpoint *share.Endpoint // as in Way, with the host's words
	logins   logins          // with endpoint alone
	reason   string          // as in Way
}

// Unserved says of each node that a group reaches, and that no link leads to, why: for operators. It is
// about whole nodes; Way.Reason is about single inbounds.
func Unserved(nodes []corestore.Node, protocols []corestore.Protocol, group corestore.Group) []string {
	reached := map[int64]bool{}
	for _, p := range protocols {
		reached[p.NodeID] = reached[p.NodeID] || p.Enabled && group.Reaches(p.NodeID, p.ID)
	}
	var reasons []string
	for _, n := range nodes {
		if reason := unserved(n); reason != "" && reached[n.ID] {
			reasons = append(reasons, fmt.Sprintf("node %s: %s", n.Name, reason))
		}
	}
	return reasons
}

// unserved says why nobody reaches any inbound of the node; empty where clients can.
func unserved(n corestore.Node) string {
	switch {
	case n.RegisteredAt == nil:
		return fmt.Sprintf("it is not registered; 'node-core node code %s' prints the command that registers it", n.Name)
	case !n.Enabled:
		return fmt.Sprintf("it is disabled; 'node-core node edit %s --enabled' lets clients in", n.Name)
	case n.Maintenance:
		return fmt.Sprintf("it is in maintenance; 'node-core node maintenance %s off' ends that", n.Name)
	case !n.Serves():
		return fmt.Sprintf("its budget of this month is used up; 'node-core node edit %s --budget BYTES' raises it", n.Name)
	}
	return ""
}

// NewPlan returns the ways of a group's subscriptions, by nodes and then by protocols in the given
// order. An inbound with hosts has a way for each host that is enabled, in the place of its own.
func NewPlan(nodes []corestore.Node, protocols []corestore.Protocol, hosts []corestore.Host, group corestore.Group) Plan {
	of := map[int64][]corestore.Protocol{}
	for _, p := range protocols {
		if p.Enabled && group.Reaches(p.NodeID, p.ID) {
			of[p.NodeID] = append(of[p.NodeID], p)
		}
	}
	hostsOf := map[int64][]corestore.Host{}
	for _, h := range hosts {
		hostsOf[h.ProtocolID] = append(hostsOf[h.ProtocolID], h)
	}
	var plan Plan
	for _, node := range nodes {
		if !node.Serves() {
			continue
		}
		if node.RegisteredAt == nil {
			node.Address = "" // nobody is there yet
		}
		for _, p := range of[node.ID] {
			plan.routes = append(plan.routes, routesTo(node, p, hostsOf[p.ID])...)
		}
	}
	return plan
}

func routesTo(node corestore.Node, p corestore.Protocol, hosts []corestore.Host) []route {
	own := route{node: node, protocol: p, reason: notServed(node, p)}
	switch {
	case own.reason != "":
		return []route{own}
	case p.Protocol == mtproto:
		if links, err := mtprotoLinks(node, p, Sample); err != nil || len(links) == 0 {
			hosts = nil // a host can't mend it
		}
	case address(node, p) == "":
		return []route{own}
	default:
		e, err := readEndpoint(p)
		if err != nil {
			own.reason = err.Error()
			return []route{own}
		}
		e.Name, e.Host, e.Port = node.Name+"-"+p.Tag, address(node, p), p.Port
		own.endpoint, own.logins = &e, newLogins(p, e.Account.Method)
	}
	if len(hosts) == 0 {
		return []route{own}
	}
	var routes []route
	for _, h := range hosts {
		if h.Enabled {
			routes = append(routes, own.withHost(h))
		}
	}
	return routes
}

// For returns the ways of a subscription. user is the name of its user.
func (p Plan) For(sub corestore.Subscription, user string) []Way {
	ways := make([]Way, len(p.routes))
	for i := range p.routes {
		ways[i] = p.Way(i, sub, user)
	}
	return ways
}

// Indexes are those of the ways.
func (p Plan) Indexes() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range p.routes {
			if !yield(i) {
				return
			}
		}
	}
}

// NamesUser reports whether the name of a way depends on the user.
func (p Plan) NamesUser(i int) bool {
	h := p.routes[i].host
	return h != nil && strings.Contains(h.Remark, userPlaceholder)
}

// Way is one of those that For returns.
func (p Plan) Way(i int, sub corestore.Subscription, user string) Way {
	r := &p.routes[i]
	w := Way{Node: r.node, Protocol: r.protocol, Reason: r.reason}
	if r.reason != "" {
		return w
	}
	var err error
	switch {
	case r.protocol.Protocol == mtproto:
		w.Links, err = mtprotoLinks(r.node, r.protocol, sub)
		if r.host != nil {
			for n, link := range w.Links {
				w.Links[n] = telegramLink(link, *r.host)
			}
		}
	case r.endpoint != nil:
		e := r.logins.endpoint(*r.endpoint, sub)
		if p.NamesUser(i) {
			e.Name = strings.ReplaceAll(e.Name, userPlaceholder, user)
		}
		// An inbound can have an outbound of Xray where no link says what it needs.
		w.Endpoint = &e
		var link string
		if link, err = share.Link(e); err == nil {
			w.Links = []string{link}
		}
	}
	if err != nil {
		w.Reason = err.Error()
	}
	return w
}

// notServed says why an inbound is not served; empty where it is.
func notServed(node corestore.Node, p corestore.Protocol) string {
	switch {
	case LeftOut(node, p):
		return fmt.Sprintf("the node's Xray is too old for this inbound; 'node-core node show %s' says why", node.Name)
	case p.Status == "failed":
		return fmt.Sprintf("the node refuses this inbound; 'node-core node errors %s' says why", node.Name)
	}
	return ""
}
