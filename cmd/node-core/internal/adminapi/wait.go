package adminapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
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
	var err error
	if args.Nodes, err = s.named(ctx, args.Change); err != nil {
		return nil, err
	}
	states := make([]coreapi.NodeState, len(args.Nodes))
	err = s.waitForAll(ctx, args.Change, states, over.Done())
	for _, state := range states {
		hideInRefusals(ctx, state.Refused)
		hideInRefusals(ctx, state.Others)
	}
	return states, err
}

// named replaces coreapi.AllNodes by the nodes that it stands for. Each gets its revision of now, which has
// the change too. A node that stands in the list by itself keeps the revision that it has there.
func (s *Server) named(ctx context.Context, change coreapi.Change) ([]coreapi.Revision, error) {
	var named, all []coreapi.Revision
	var single []int64
	for _, r := range change.Nodes {
		if r.Node == coreapi.AllNodes {
			all = append(all, r)
			continue
		}
		named, single = append(named, r), append(single, r.Node)
	}
	if len(all) == 0 {
		return change.Nodes, nil
	}
	since, err := s.store.RevisionsSince(ctx, slices.MinFunc(all, byRevision).Revision, !change.Unserving)
	if err != nil {
		return nil, err
	}
	slices.Sort(single)
	for _, r := range since {
		if _, is := slices.BinarySearch(single, r.Node); !is {
			named = append(named, r)
		}
	}
	return named, nil
}

func byRevision(a, b coreapi.Revision) int { return cmp.Compare(a.Revision, b.Revision) }

// waitForAll waits for the nodes of a change until over is closed, and writes into states how they are to
// it, in their order. Nodes that report while it waits for another one are read together.
func (s *Server) waitForAll(ctx context.Context, change coreapi.Change, states []coreapi.NodeState, over <-chan struct{}) error {
	waiting := make([]int, len(states)) // indexes of the nodes that have not answered yet
	for i := range waiting {
		waiting[i] = i
	}
	reports := make([]<-chan struct{}, len(states))
	for ended, unread := false, waiting; ; {
		for _, i := range unread {
			reports[i] = s.hub.NextReport(change.Nodes[i].Node) // before the node is read
		}
		if err := s.readStates(ctx, change, states, unread); err != nil {
			return err
		}
		waiting = slices.DeleteFunc(waiting, func(i int) bool {
			return states[i].State == coreapi.Runs || states[i].State == coreapi.Refuses
		})
		switch {
		case len(waiting) == 0:
			return nil
		case ended:
			return ctx.Err()
		}
		select {
		case <-reports[waiting[0]]:
		case <-over:
			ended = true
		case <-s.stopping.Done():
			return errors.New("node-core stops; the change is stored")
		}
		unread = nil
		for _, i := range waiting {
			select {
			case <-reports[i]:
				unread = append(unread, i)
			default:
			}
		}
	}
}

// readStates writes into states how the nodes with these indexes are to the change now.
func (s *Server) readStates(ctx context.Context, change coreapi.Change, states []coreapi.NodeState, indexes []int) error {
	if len(indexes) == 0 {
		return nil
	}
	ids := make([]int64, len(indexes))
	for n, i := range indexes {
		ids[n] = change.Nodes[i].Node
	}
	progress, err := s.store.ProgressOf(ctx, ids)
	if err != nil {
		return err
	}
	for _, i := range indexes {
		r := change.Nodes[i]
		if node, found := progress[r.Node]; found {
			states[i] = stateOf(node, r, change.Part)
		} else {
			states[i] = coreapi.NodeState{Node: r.Node, State: coreapi.Refuses, Reason: "it was removed from Core"}
		}
	}
	return nil
}

// stateOf returns how a node is to the change.
func stateOf(node corestore.Progress, r coreapi.Revision, part coreapi.Part) coreapi.NodeState {
	state := coreapi.NodeState{Node: r.Node, Name: node.Name, State: coreapi.Waiting, Since: node.LastSeenAt}
	for _, refused := range node.Refusals {
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
		state.Others = node.Refusals
		if node.LastSeenAt == nil || time.Since(*node.LastSeenAt) > corestore.OfflineAfter {
			state.State = coreapi.Away
		}
		if node.RegisteredAt == nil {
			state.Reason = "it is not registered yet"
		}
	}
	return state
}

// isAbout reports whether the refusal is about the part, or about a client of it.
func isAbout(r corestore.Refusal, p coreapi.Part) bool {
	return p.Tag != "" && r.Tag == p.Tag && (r.Kind == p.Kind || r.Kind == "client" && p.Kind != "outbound") ||
		p.Kind == "mtproto" && (r.Kind == "upstream" || r.Kind == "mtproto" && r.Tag == "")
}
