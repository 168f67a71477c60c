package adminapi

import (
	"context"
	"encoding/json"
	"strings"
	"unicode"

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
	revisions, err := s.store.RevisionsOf(ctx, c.nodes, c.serving)
	if err != nil {
		return nil, err
	}
	nodes := make([]int64, len(revisions))
	for i, r := range revisions {
		nodes[i] = r.Node
	}
	refusing, err := s.store.Refusing(ctx, nodes)
	if err != nil {
		return nil, err
	}
	return json.Marshal(coreapi.Change{Nodes: revisions, Part: c.part, Refusing: refusing})
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
