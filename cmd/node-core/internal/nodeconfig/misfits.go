package nodeconfig

import (
	"fmt"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/xray/versions"
)

// refusesAlone is the first Xray whose agents refuse one part of a configuration and take the
// rest. Older agents refuse the whole of it, and go on with the one before.
var refusesAlone = versions.Version{26, 7, 28}

// Misfit is a sentence about a part of a node's configuration that the node's Xray does not
// take, or takes for something else than other versions do.
type Misfit struct {
	Text    string
	Refused bool // the node does not serve that part
}

// ProtocolMisfits returns what does not fit in an inbound. It finds nothing while Core does not
// know the node's version, and nothing in an inbound of MTProto, which is not Xray's.
func ProtocolMisfits(node corestore.Node, p corestore.Protocol) []Misfit {
	v, found := inboundMisfits(node, p)
	var all []Misfit
	for _, one := range found {
		m := misfit(node, v, "protocol "+p.Tag, one)
		switch {
		case one.Newer:
			m.Text += ". Core leaves the inbound out of the node's configuration until the node is upgraded"
		case one.Refused:
			m.Text += ". The node refuses the inbound"
		}
		all = append(all, m)
	}
	return all
}

// OutboundMisfits is ProtocolMisfits for an outbound.
func OutboundMisfits(node corestore.Node, o corestore.Outbound) []Misfit {
	v, known := versions.OfAgent(node.Agent)
	if !known {
		return nil
	}
	var all []Misfit
	for _, one := range versions.Outbound(o.Config, v) {
		m := misfit(node, v, "outbound "+o.Tag, one)
		switch {
		case one.Refused && v.Before(refusesAlone):
			m.Text += ". The node refuses the outbound, and with it every later change of its configuration: replace the outbound, or upgrade the node"
		case one.Refused:
			m.Text += ". The node refuses the outbound"
		}
		all = append(all, m)
	}
	return all
}

func misfit(node corestore.Node, v versions.Version, part string, one versions.Misfit) Misfit {
	return Misfit{fmt.Sprintf("node %s has Xray %s, %s: %s", node.Name, v, part, one.Text), one.Refused}
}

func inboundMisfits(node corestore.Node, p corestore.Protocol) (versions.Version, []versions.Misfit) {
	v, known := versions.OfAgent(node.Agent)
	if !known || p.Protocol == mtproto {
		return v, nil
	}
	return v, versions.Inbound(p.Config, v)
}

// LeftOut reports whether Build leaves the inbound out, because the node's Xray is too old for
// it. An agent of an older Xray refuses the whole configuration for one such inbound, and then
// neither lets in a new client nor ends a removed one. An outbound is never left out: clients
// would silently go another way.
func LeftOut(node corestore.Node, p corestore.Protocol) bool {
	_, found := inboundMisfits(node, p)
	return slices.ContainsFunc(found, func(m versions.Misfit) bool { return m.Newer })
}
