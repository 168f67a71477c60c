package adminapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
)

// Change is what a call has changed of nodes' configurations: what a command can wait for.
type Change struct {
	// Nodes are the nodes that the change concerns, each with the first of its revisions that
	// has the change.
	Nodes []Revision `json:"nodes"`
	Part  Part       `json:"part,omitzero"`
}

// Revision is a revision of a node's configuration.
type Revision struct {
	Node     int64 `json:"node"`
	Revision int64 `json:"revision"`
}

// Part is the inbound or the outbound that a change adds or replaces. It is the zero value for
// any other change.
type Part struct {
	Kind string `json:"kind"` // inbound, outbound or mtproto
	Tag  string `json:"tag"`
}

// headerChange is a header of the answer to a call that changes nodes: a Change as JSON.
const headerChange = "Node-Core-Change"

// changed is the outcome of a call that changes nodes.
type changed struct {
	nodes []int64 // whose revision was raised
	part  Part
	// serving says that the change concerns only nodes that serve clients: registered ones
	// with an inbound. The others fetch it too, and nobody has to wait for them.
	serving  bool
	warnings []string // what the nodes will warn of
}

// serveChange is serve for a call that changes nodes. It wakes the nodes' heartbeats, and adds
// to the answer what the command can wait for.
func serveChange[Args, Answer any](s *Server, run func(context.Context, Args) (Answer, changed, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		serve(s, func(ctx context.Context, args Args) (Answer, error) {
			answer, c, err := run(ctx, args)
			if err != nil {
				return answer, err
			}
			s.hub.Changed(c.nodes...)
			for _, text := range c.warnings {
				w.Header().Add(headerWarning, printable(text))
			}
			// What is changed stays changed, also where the command can't be told what to wait for.
			if raw, err := s.toWaitFor(ctx, c); err != nil {
				s.log.Error("find what a command can wait for", "error", err)
			} else {
				w.Header().Set(headerChange, string(raw))
			}
			return answer, nil
		})(w, r)
	}
}

// toWaitFor returns the Change of c as JSON. It reads the nodes' revisions after the commit:
// where another change followed at once, its revision is waited for, which has this change too.
func (s *Server) toWaitFor(ctx context.Context, c changed) ([]byte, error) {
	change := Change{Nodes: []Revision{}, Part: c.part}
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
		change.Nodes = append(change.Nodes, Revision{Node: id, Revision: node.Revision})
	}
	return json.Marshal(change)
}

// serves reports whether the node is registered and enabled, and has an inbound.
func (s *Server) serves(ctx context.Context, node corestore.Node) (bool, error) {
	if node.RegisteredAt == nil || !node.Enabled {
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
