package adminapi

import (
	"fmt"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/xray/versions"
)

// misfits are what a node's Xray makes of an inbound or outbound.
type misfits struct {
	node  corestore.Node
	v     versions.Version
	part  string // of the configuration, in words
	found []versions.Misfit
}

// protocolMisfits returns what does not fit in an inbound. It finds nothing while Core does
// not know the node's version, and nothing in an inbound of MTProto, which is not Xray's.
func protocolMisfits(node corestore.Node, p corestore.Protocol) misfits {
	v, known := versions.OfAgent(node.Agent)
	if !known || p.Protocol == "mtproto" {
		return misfits{}
	}
	return misfits{node, v, "protocol " + p.Tag, versions.Inbound(p.Config, v)}
}

// outboundMisfits is protocolMisfits for an outbound.
func outboundMisfits(node corestore.Node, o corestore.Outbound) misfits {
	v, known := versions.OfAgent(node.Agent)
	if !known {
		return misfits{}
	}
	return misfits{node, v, "outbound " + o.Tag, versions.Outbound(o.Config, v)}
}

// all returns a sentence for each misfit.
func (m misfits) all() Misfits {
	var all Misfits
	for _, one := range m.found {
		all.Texts = append(all.Texts, m.sentence(one))
	}
	return all
}

// refused returns the sentences about what the node refuses.
func (m misfits) refused() []string {
	var all []string
	for _, one := range m.found {
		if one.Refused {
			all = append(all, m.sentence(one))
		}
	}
	return all
}

func (m misfits) sentence(one versions.Misfit) string {
	text := fmt.Sprintf("node %s has Xray %s, %s: %s", m.node.Name, m.v, m.part, one.Text)
	if one.Refused {
		text += ". The node refuses it"
	}
	return text
}
