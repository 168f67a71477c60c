package adminapi

import (
	"context"
	"sync"

	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// linkPlans keeps the links of the group that was asked for last, without credentials: reading them anew
// takes 30 µs for each node. It is good for as long as Store.LinkChanges stays the same.
type linkPlans struct {
	mu   sync.Mutex // held while last is read or changed, and never while the database is asked
	last *linkPlan
}

// linkPlan does not change.
type linkPlan struct {
	group    int64
	changes  int64
	plan     nodeconfig.Plan
	unserved []string // nodeconfig.Unserved
}

// linkPlan returns the plan of a group, of now or of later.
func (s *Server) linkPlan(ctx context.Context, group int64) (*linkPlan, error) {
	changes, err := s.store.LinkChanges(ctx)
	if err != nil {
		return nil, err
	}
	s.plans.mu.Lock()
	last := s.plans.last
	s.plans.mu.Unlock()
	if last != nil && last.group == group && last.changes >= changes {
		return last, nil
	}
	rows, err := s.store.LinkRows(ctx, group)
	if err != nil {
		return nil, err
	}
	last = &linkPlan{
		group: group, changes: rows.Changes,
		plan:     nodeconfig.NewPlan(rows.Nodes, rows.Protocols, rows.Hosts, rows.Group),
		unserved: nodeconfig.Unserved(rows.Nodes, rows.Protocols, rows.Group),
	}
	s.plans.mu.Lock()
	defer s.plans.mu.Unlock()
	s.plans.last = last
	return last, nil
}
