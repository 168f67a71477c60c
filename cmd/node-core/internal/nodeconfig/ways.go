package nodeconfig

import (
	"fmt"

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

// Ways returns how the subscription reaches each inbound that its group is on, by nodes and then
// by protocols in the given order.
func Ways(nodes []corestore.Node, protocols []corestore.Protocol, group corestore.Group, sub corestore.Subscription) []Way {
	of := map[int64][]corestore.Protocol{}
	for _, p := range protocols {
		if p.Enabled && group.Reaches(p.NodeID, p.ID) {
			of[p.NodeID] = append(of[p.NodeID], p)
		}
	}
	var ways []Way
	for _, node := range nodes {
		if !node.Serves() {
			continue
		}
		if node.RegisteredAt == nil {
			node.Address = "" // nobody is there yet
		}
		for _, p := range of[node.ID] {
			ways = append(ways, way(node, p, sub))
		}
	}
	return ways
}

func way(node corestore.Node, p corestore.Protocol, sub corestore.Subscription) Way {
	w := Way{Node: node, Protocol: p, Reason: notServed(node, p)}
	if w.Reason != "" {
		return w
	}
	var err error
	if w.Links, err = Links(node, p, sub); err != nil {
		w.Reason = err.Error()
	}
	if p.Protocol == mtproto || address(node, p) == "" {
		return w
	}
	// An inbound can have an outbound of Xray where no link says what it needs.
	if e, err := Endpoint(node, p, sub); err == nil {
		w.Endpoint = &e
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
