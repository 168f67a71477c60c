package sublink

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"nodeagent/cmd/node-core/internal/clientapps"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/internal/logkey"
)

const (
	// awayEvery is how often the cache asks which nodes are away. A node is away after 90 seconds of
	// silence, so that a few more do not matter.
	awayEvery = 5 * time.Second
	// maxKept bounds the bytes of the answers that are kept: those of some hundred groups with 500 links.
	maxKept = 256 << 20
	// maxForms bounds the forms that are kept for one group.
	maxForms = 64
)

// cache keeps what is the same for all subscriptions of a group: the plan, and each form of the
// answer with gaps for the credentials. It is made anew when the version of the rows has changed,
// which each fetch reads with its subscription, and when another set of nodes is away. A fetch that
// begins after an edit was committed never gets an answer of before.
type cache struct {
	store    *corestore.Store
	log      *slog.Logger
	building singleflight.Group

	mu     sync.Mutex // held while the members below are read or changed, and never while the database is asked
	groups map[int64]*groupLinks
	away   []int64 // ids of nodes, in order
	asked  time.Time
	kept   int // bytes
}

// groupLinks are the links of one group at one version.
type groupLinks struct {
	id      int64
	changes int64
	away    []int64
	plan    nodeconfig.Plan
	apps    *clientapps.Apps

	mu     sync.Mutex // held while bodies is read or changed; taken last
	bodies map[string]*filled
}

func newCache(store *corestore.Store, log *slog.Logger) *cache {
	return &cache{store: store, log: log, groups: map[int64]*groupLinks{}}
}

// group returns the links of a group at the version changes, or at a later one.
func (c *cache) group(ctx context.Context, id, changes int64) (*groupLinks, error) {
	away, err := c.awayNodes(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	found := c.groups[id]
	c.mu.Unlock()
	if found != nil && found.changes >= changes && slices.Equal(found.away, away) {
		return found, nil
	}
	// Fetches of one version share the build. It goes on where the fetch that began it ends.
	built, err, _ := c.building.Do(fmt.Sprint(id, changes, away), func() (any, error) {
		return c.build(context.WithoutCancel(ctx), id, away)
	})
	if err != nil {
		return nil, err
	}
	return built.(*groupLinks), nil
}

func (c *cache) build(ctx context.Context, id int64, away []int64) (*groupLinks, error) {
	rows, err := c.store.LinkRows(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read what links are made of: %w", err)
	}
	apps, err := clientapps.New(rows.Templates, rows.Rules)
	if apps == nil {
		return nil, err
	}
	if err != nil {
		c.log.Error("read a template of a client; the built-in one is used", logkey.Error, err)
	}
	built := &groupLinks{
		id: id, changes: rows.Changes, away: away, bodies: map[string]*filled{}, apps: apps,
		plan: nodeconfig.NewPlan(present(rows.Nodes, away), rows.Protocols, rows.Hosts, rows.Group),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A build that took long must not replace a later one.
	if before := c.groups[id]; before == nil || before.changes <= built.changes {
		c.forget(id)
		c.groups[id] = built
	}
	return built, nil
}

// awayNodes returns the nodes that were away a moment ago.
func (c *cache) awayNodes(ctx context.Context) ([]int64, error) {
	now := time.Now()
	c.mu.Lock()
	away, fresh := c.away, now.Sub(c.asked) < awayEvery
	c.mu.Unlock()
	if fresh {
		return away, nil
	}
	found, err, _ := c.building.Do("away", func() (any, error) {
		away, err := c.store.AwayNodes(context.WithoutCancel(ctx), now)
		if err != nil {
			return nil, fmt.Errorf("look for nodes that are away: %w", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.away, c.asked = away, now
		return away, nil
	})
	if err != nil {
		return nil, err
	}
	return found.([]int64), nil
}

// present returns the nodes that are not away, and all of them where every one is: then Core
// itself was, and a list without links would leave applications with nothing.
func present(nodes []corestore.Node, away []int64) []corestore.Node {
	there := slices.DeleteFunc(slices.Clone(nodes), func(n corestore.Node) bool {
		_, is := slices.BinarySearch(away, n.ID)
		return is
	})
	if len(there) == 0 {
		return nodes
	}
	return there
}

// body returns the answer for a subscription in a form. A notice stands before a list of links, as a
// line that applications read as they read the header Announce.
func (c *cache) body(g *groupLinks, f *format, l corestore.Linked, notice string) ([]byte, error) {
	g.mu.Lock()
	form := g.bodies[f.key()]
	g.mu.Unlock()
	if form == nil {
		var err error
		if form, err = fill(g.plan, f); err != nil {
			return nil, err
		}
		c.keep(g, f.key(), form)
	}
	body, err := form.of(l.Subscription, l.User)
	if f.perWay && notice != "" {
		body = append([]byte("#announce: "+encoded(notice)+"\n"), body...)
	}
	if err == nil && f.base64 {
		body = base64.StdEncoding.AppendEncode(nil, body)
	}
	return body, err
}

// keep keeps an answer. Where that is too much, other groups' answers make room.
func (c *cache) keep(g *groupLinks, name string, form *filled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if form.size > maxKept || c.groups[g.id] != g {
		return // a later version has taken its place
	}
	g.mu.Lock()
	// A User-Agent can fit many sets of rules.
	if len(g.bodies) >= maxForms {
		for _, kept := range g.bodies {
			c.kept -= kept.size
		}
		clear(g.bodies)
	}
	if g.bodies[name] == nil {
		c.kept += form.size
	}
	g.bodies[name] = form
	g.mu.Unlock()
	for id, other := range c.groups {
		if c.kept <= maxKept {
			return
		}
		if other != g {
			c.forget(id)
		}
	}
}

// forget drops a group. The caller holds mu.
func (c *cache) forget(id int64) {
	g := c.groups[id]
	if g == nil {
		return
	}
	g.mu.Lock()
	for _, form := range g.bodies {
		c.kept -= form.size
	}
	g.mu.Unlock()
	delete(c.groups, id)
}

// nothing returns the group without its links, for a subscription or a device that gets none.
func (g *groupLinks) nothing() *groupLinks { return &groupLinks{apps: g.apps} }
