package adminapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
)

// MaxWait bounds how long a command waits for nodes.
const MaxWait = 10 * time.Minute

// WaitArgs says for what to wait. With a Wait of 0 the answer is how it stands now.
type WaitArgs struct {
	Change
	Wait time.Duration `json:"wait"`
}

// State is how a node is to a change.
type State string

// The states of a node to a change.
const (
	Runs    State = "runs"    // it runs the change
	Refuses State = "refuses" // it has the change and does not run it
	Away    State = "away"    // it has not been heard of for a while, or never
	Waiting State = "waiting" // it was heard of, and has not answered to the change yet
)

// NodeState says how a node is to a change.
type NodeState struct {
	Node   int64      `json:"node"`
	Name   string     `json:"name"`
	State  State      `json:"state"`
	Since  *time.Time `json:"since"`            // when an away or waiting node was heard of last, UTC; null for never
	Reason string     `json:"reason,omitempty"` // why it does not run the change, as far as no part says it
	// Refused are the parts of the change that the node refuses.
	Refused []corestore.Refusal `json:"refused,omitempty"`
	// Others are the parts that it refused before, which are no part of the change.
	Others []corestore.Refusal `json:"others,omitempty"`
}

// wait waits until each node runs the change or refuses it, at most for args.Wait. A node's
// report, its answer to a change and its heartbeat wake it.
func (s *Server) wait(ctx context.Context, args WaitArgs) ([]NodeState, error) {
	if args.Wait < 0 || args.Wait > MaxWait {
		return nil, badInput{fmt.Errorf("can't wait for %s: want at most %s", args.Wait, MaxWait)}
	}
	over, cancel := context.WithTimeout(ctx, args.Wait)
	defer cancel()
	states := []NodeState{}
	for _, r := range args.Nodes {
		state, err := s.waitFor(ctx, r, args.Part, over.Done())
		if err != nil {
			return nil, err
		}
		states = append(states, state)
	}
	return states, nil
}

// waitFor waits for one node, until over is closed.
func (s *Server) waitFor(ctx context.Context, r Revision, part Part, over <-chan struct{}) (NodeState, error) {
	for {
		reported := s.hub.NextReport(r.Node)
		state, err := s.stateOf(ctx, r, part)
		if err != nil || state.State == Runs || state.State == Refuses {
			return state, err
		}
		select {
		case <-reported:
		case <-over:
			return state, ctx.Err()
		case <-s.stopping.Done():
			return state, errors.New("node-core stops; the change is stored")
		}
	}
}

// stateOf returns how a node is to the change now.
func (s *Server) stateOf(ctx context.Context, r Revision, part Part) (NodeState, error) {
	state := NodeState{Node: r.Node, State: Waiting}
	node, err := s.store.NodeByID(ctx, r.Node)
	if errors.Is(err, corestore.ErrNotFound) {
		state.State, state.Reason = Refuses, "it was removed from Core"
		return state, nil
	} else if err != nil {
		return state, err
	}
	state.Name, state.Since = node.Name, node.LastSeenAt
	refusals, err := s.store.Refusals(ctx, r.Node)
	if err != nil {
		return state, err
	}
	for _, refused := range refusals {
		if refused.SinceRevision >= r.Revision || refused.Kind == "" || part.has(refused) {
			state.Refused = append(state.Refused, refused)
		} else {
			state.Others = append(state.Others, refused)
		}
	}
	switch {
	case node.AppliedRevision != nil && *node.AppliedRevision >= r.Revision:
		state.State, state.Refused = Runs, nil
	case node.RefusedRevision != nil && *node.RefusedRevision >= r.Revision && len(state.Refused) > 0:
		state.State = Refuses
	case node.RefusedRevision != nil && *node.RefusedRevision >= r.Revision:
		state.State = Runs
	default:
		state.Refused = nil // it has not answered to this change
		state.Others = refusals
		if node.LastSeenAt == nil || time.Since(*node.LastSeenAt) > corestore.OfflineAfter {
			state.State = Away
		}
		if node.RegisteredAt == nil {
			state.Reason = "it is not registered yet"
		}
	}
	return state, nil
}

// has reports whether the refusal is about the part, or about a client of it.
func (p Part) has(r corestore.Refusal) bool {
	return p.Tag != "" && r.Tag == p.Tag && (r.Kind == p.Kind || r.Kind == "client" && p.Kind != "outbound") ||
		p.Kind == "mtproto" && (r.Kind == "upstream" || r.Kind == "mtproto" && r.Tag == "")
}
