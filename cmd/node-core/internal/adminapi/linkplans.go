package adminapi

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/gaps"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// linkPlans keeps what the links of one group are made of, the one that was asked for last: reading it anew takes
// 30 µs for each node. From the second request on, it has the links too, without credentials. It is good for as
// long as Store.LinkChanges stays the same.
type linkPlans struct {
	mu   sync.Mutex // held while last is read or changed, and never while the database is asked
	last *linkPlan
}

// linkPlan is what the links of a group are made of. Only runs are made later.
type linkPlan struct {
	group    int64
	changes  int64
	plan     nodeconfig.Plan
	unserved []string // nodeconfig.Unserved
	asked    atomic.Bool
	makeRuns sync.Once
	runs     []linkRun // in the order of the plan's ways; made by makeRuns
}

// linkRun are the links of ways that follow one another, and the way behind them.
type linkRun struct {
	text  gaps.Text // a line for each link
	links int       // how many
	// way is the index of the way that follows the links, and -1 where none follows. Its links are made for each
	// subscription: they have credentials in another form, or name the user, or the way has no link.
	way int
}

func newLinkPlan(rows corestore.LinkRows) *linkPlan {
	return &linkPlan{
		group: rows.Group.ID, changes: rows.Changes,
		plan:     nodeconfig.NewPlan(rows.Nodes, rows.Protocols, rows.Hosts, rows.Group),
		unserved: nodeconfig.Unserved(rows.Nodes, rows.Protocols, rows.Group),
	}
}

// newRuns makes the links for two subscriptions that nobody has, and keeps what they have in common. Making
// a link takes ten times as long as filling it in.
func newRuns(plan nodeconfig.Plan) (runs []linkRun) {
	one, other := gaps.Sample(), gaps.Sample()
	ofOne, ofOther := gaps.CredentialsOf(one), gaps.CredentialsOf(other)
	var first, second []byte
	links := 0
	end := func(way int) {
		text, _ := gaps.Cut(bytes.Clone(first), ofOne, second, ofOther) // alike, as each line of it
		runs = append(runs, linkRun{text, links, way})
		first, second, links = nil, nil, 0
	}
	for i := range plan.Indexes() {
		w, v := plan.Way(i, one, ""), plan.Way(i, other, "")
		lines, others := linesOf(w.Links), linesOf(v.Links)
		_, alike := gaps.Cut(lines, ofOne, others, ofOther)
		if !alike || w.Reason != "" || plan.NamesUser(i) || bytes.Count(lines, []byte{'\n'}) != len(w.Links) {
			end(i)
			continue
		}
		first, second, links = append(first, lines...), append(second, others...), links+len(w.Links)
	}
	end(-1)
	return runs
}

func linesOf(links []string) (lines []byte) {
	for _, link := range links {
		lines = append(append(lines, link...), '\n')
	}
	return lines
}

// links returns the links of a subscription, and a reason for each way and node that has no link for it.
func (p *linkPlan) links(sub corestore.Subscription, user string) (links, without []string) {
	links = []string{}
	add := func(w nodeconfig.Way) {
		links = append(links, w.Links...)
		if w.Reason != "" {
			without = append(without, fmt.Sprintf("%s of node %s: %s", w.Protocol.Tag, w.Node.Name, w.Reason))
		}
	}
	// Credentials of its own stand in place of those in the gaps. The first request after an edit, or after one
	// for another group, is often the only one, and making the runs takes twice as long as making its links.
	if len(sub.Credentials) > 0 || !p.asked.Swap(true) {
		for _, w := range p.plan.For(sub, user) {
			add(w)
		}
		return links, append(without, p.unserved...)
	}
	p.makeRuns.Do(func() { p.runs = newRuns(p.plan) })
	credentials := gaps.CredentialsOf(sub)
	for _, run := range p.runs {
		links = slices.Grow(links, run.links)
		for line := range strings.Lines(string(run.text.Append(nil, credentials))) {
			links = append(links, strings.TrimSuffix(line, "\n"))
		}
		if run.way >= 0 {
			add(p.plan.Way(run.way, sub, user))
		}
	}
	return links, append(without, p.unserved...)
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
	last = newLinkPlan(rows)
	s.plans.mu.Lock()
	defer s.plans.mu.Unlock()
	s.plans.last = last
	return last, nil
}
