package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

func registerWait(a api) {
	read(a, operation{id: "wait", method: http.MethodPost, path: "/wait", noun: "nodes", summary: "Wait until each node runs a change or refuses it", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct{ Body coreapi.WaitArgs }) ([]coreapi.NodeState, error) {
			return a.server.wait(ctx, in.Body)
		})
}

// wait waits until each node runs the change or refuses it, at most for args.Wait. A node's
// report, its answer to a change and its heartbeat wake it.
func (s *Server) wait(ctx context.Context, args coreapi.WaitArgs) ([]coreapi.NodeState, error) {
	if args.Wait < 0 || args.Wait > coreapi.MaxWait {
		return nil, badInput{fmt.Errorf("can't wait for %s: want at most %s", args.Wait, coreapi.MaxWait)}
	}
	over, cancel := context.WithTimeout(ctx, args.Wait)
	defer cancel()
	states := []coreapi.NodeState{}
	for _, r := range args.Nodes {
		state, err := s.waitFor(ctx, r, args.Part, over.Done())
		if err != nil {
			return nil, err
		}
		hideInRefusals(ctx, state.Refused)
		hideInRefusals(ctx, state.Others)
		states = append(states, state)
	}
	return states, nil
}

// waitFor waits for one node, until over is closed.
func (s *Server) waitFor(ctx context.Context, r coreapi.Revision, part coreapi.Part, over <-chan struct{}) (coreapi.NodeState, error) {
	for {
		reported := s.hub.NextReport(r.Node)
		state, err := s.stateOf(ctx, r, part)
		if err != nil || state.State == coreapi.Runs || state.State == coreapi.Refuses {
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
func (s *Server) stateOf(ctx context.Context, r coreapi.Revision, part coreapi.Part) (coreapi.NodeState, error) {
	state := coreapi.NodeState{Node: r.Node, State: coreapi.Waiting}
	node, err := s.store.NodeByID(ctx, r.Node)
	if errors.Is(err, corestore.ErrNotFound) {
		state.State, state.Reason = coreapi.Refuses, "it was removed from Core"
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
		if refused.SinceRevision >= r.Revision || refused.Kind == "" || isAbout(refused, part) {
			state.Refused = append(state.Refused, refused)
		} else {
			state.Others = append(state.Others, refused)
		}
	}
	switch {
	case node.AppliedRevision != nil && *node.AppliedRevision >= r.Revision:
		state.State, state.Refused = coreapi.Runs, nil
	case node.RefusedRevision != nil && *node.RefusedRevision >= r.Revision && len(state.Refused) > 0:
		state.State = coreapi.Refuses
	case node.RefusedRevision != nil && *node.RefusedRevision >= r.Revision:
		state.State = coreapi.Runs
	default:
		state.Refused = nil // it has not answered to this change
		state.Others = refusals
		if node.LastSeenAt == nil || time.Since(*node.LastSeenAt) > corestore.OfflineAfter {
			state.State = coreapi.Away
		}
		if node.RegisteredAt == nil {
			state.Reason = "it is not registered yet"
		}
	}
	return state, nil
}

// isAbout reports whether the refusal is about the part, or about a client of it.
func isAbout(r corestore.Refusal, p coreapi.Part) bool {
	return p.Tag != "" && r.Tag == p.Tag && (r.Kind == p.Kind || r.Kind == "client" && p.Kind != "outbound") ||
		p.Kind == "mtproto" && (r.Kind == "upstream" || r.Kind == "mtproto" && r.Tag == "")
}
