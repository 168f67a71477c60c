package adminapi

import (
	"context"
	"encoding/json"
	"strings"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// changed is the outcome of a call that changes nodes.
type changed struct {
	nodes []int64 // whose revision was raised
	part  coreapi.Part
	// serving says that the change concerns only nodes that serve clients: registered ones
	// with an inbound. The others fetch it too, and nobody has to wait for them.
	serving  bool
	warnings []string // what the nodes will warn of
}

// toWaitFor returns the Change of c as JSON. It reads the nodes' revisions after the commit:
// where another change followed at once, its revision is waited for, which has this change too.
func (s *Server) toWaitFor(ctx context.Context, c changed) ([]byte, error) {
	change := coreapi.Change{Nodes: []coreapi.Revision{}, Part: c.part}
	for _, id := range c.nodes {
		node, err := s.store.NodeByID(ctx, id)
		if err != nil {
			return nil, err
		}
		if c.serving {
			serves, err := s.serves(ctx, node)
			if err != nil {
				return nil, err
			}
			if !serves {
				continue
			}
		}
		change.Nodes = append(change.Nodes, coreapi.Revision{Node: id, Revision: node.Revision})
	}
	return json.Marshal(change)
}

// serves reports whether the node is registered and enabled, and has an inbound.
func (s *Server) serves(ctx context.Context, node corestore.Node) (bool, error) {
	if node.RegisteredAt == nil || !node.Serves() {
		return false, nil
	}
	protocols, err := s.store.Protocols(ctx, node.ID)
	return len(protocols) > 0, err
}

// printable returns a text as a header can have it: on one line, without control characters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
