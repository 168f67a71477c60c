package rendered

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreclient/wire/delta"
)

const (
	// keptFor is how long a node is remembered that is not heard of, and maxNodes how many are.
	keptFor  = 10 * time.Minute
	maxNodes = 20_000
	// keptVersions is how many documents of a node can be the base of a delta.
	keptVersions = 4
	// keptSpans is how many spans of changes are kept rendered. Nodes that are woken together need
	// the same one.
	keptSpans = 8
)

// Renderer renders configurations. Its methods may be called from any goroutine.
type Renderer struct {
	store  Store
	roster roster
	// builders bounds how many documents and deltas are made at a time.
	builders chan struct{}
	builds   atomic.Int64 // how many documents were made

	mu    sync.Mutex // held while the fields below are read or changed; taken last
	nodes map[int64]*node
	swept time.Time
	spans []*span
}

// node is what is remembered of a node.
type node struct {
	mu       sync.Mutex // held while a document of the node is made, so that it is made once
	layout   *layout    // as the rows say it; nil where they have none
	number   int64      // that layout is of
	epoch    int64      // of the database that layout is from
	newest   *Document
	granted  map[*chunk]grantedChunk // of the newest document, by the chunks without grants
	versions []version               // the last one is the newest

	used time.Time // guarded by Renderer.mu
}

// New makes a renderer that has rendered nothing yet.
func New(store Store) *Renderer {
	return &Renderer{store: store, roster: roster{store: store}, builders: make(chan struct{}, runtime.GOMAXPROCS(0)), nodes: map[int64]*node{}}
}

// node returns what is remembered of a node, and forgets others that were not heard of.
func (r *Renderer) node(id int64) *node {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	n := r.nodes[id]
	if n == nil {
		n = &node{}
		r.nodes[id] = n
	}
	n.used = now
	if now.Sub(r.swept) > keptFor/10 || len(r.nodes) > maxNodes {
		r.swept = now
		maps.DeleteFunc(r.nodes, func(_ int64, n *node) bool { return now.Sub(n.used) > keptFor })
		if over := len(r.nodes) - maxNodes*9/10; over > maxNodes/10 {
			longest := slices.SortedFunc(maps.Keys(r.nodes), func(a, b int64) int { return r.nodes[a].used.Compare(r.nodes[b].used) })
			for _, id := range longest[:over] {
				delete(r.nodes, id)
			}
		}
	}
	return n
}

// Builds returns how many documents were made, also in vain.
func (r *Renderer) Builds() int64 { return r.builds.Load() }

// Heard keeps that a node is there, so that it is remembered.
func (r *Renderer) Heard(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.nodes[id]; n != nil {
		n.used = time.Now()
	}
}

// Document returns the document of the node's newest revision, and stores that it was made.
func (r *Renderer) Document(ctx context.Context, id int64) (*Document, error) {
	d, _, err := r.document(ctx, id)
	return d, err
}

func (r *Renderer) document(ctx context.Context, id int64) (*Document, *node, error) {
	n := r.node(id)
	// The document is made also where the request that began it ends: others wait for it.
	ctx = context.WithoutCancel(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	revision, number, err := r.store.Newest(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	epoch := r.store.Epoch()
	fresh := n.number == number && n.epoch == epoch
	if n.newest != nil && n.newest.Revision == revision && fresh {
		return n.newest, n, nil
	}
	r.builders <- struct{}{}
	r.builds.Add(1)
	d, err := r.make(ctx, id, n, revision, number, epoch)
	<-r.builders
	if err != nil {
		return nil, nil, fmt.Errorf("make the configuration of node %d: %w", id, err)
	}
	// The note comes first: a document that a node got must be known to have been made.
	if err := r.store.NoteDocument(ctx, id, d.Revision, d.ETag); err != nil {
		return nil, nil, err
	}
	n.newest = d
	if !d.differs() {
		n.versions = nil
		return d, n, nil
	}
	last := len(n.versions) - 1
	if last >= 0 && n.versions[last].etag == d.ETag {
		n.versions[last].seq, n.versions[last].layout, n.versions[last].grants = d.now.seq, d.layout, d.grants
		return d, n, nil
	}
	n.versions = append(n.versions, version{etag: d.ETag, revision: d.Revision, seq: d.now.seq, layout: d.layout, grants: d.grants})
	if over := len(n.versions) - keptVersions; over > 0 {
		n.versions = slices.Clone(n.versions[over:])
	}
	return d, n, nil
}

// make makes a document of the node's rows as they are now. They can be newer than the revision; then
// another one follows.
func (r *Renderer) make(ctx context.Context, id int64, n *node, revision, number, epoch int64) (*Document, error) {
	now, err := r.roster.sync(ctx)
	if err != nil {
		return nil, err
	}
	fresh := n.newest != nil && n.number == number && n.epoch == epoch
	if fresh && n.layout == nil {
		return r.build(ctx, id, revision)
	}
	if !fresh {
		rows, err := r.store.LayoutRows(ctx, id)
		if err != nil {
			return nil, err
		}
		of, err := nodeconfig.LayoutOf(rows)
		if errors.Is(err, nodeconfig.ErrOwnLists) {
			n.layout, n.number, n.epoch = nil, number, epoch
			return r.build(ctx, id, revision)
		} else if err != nil {
			return nil, err
		}
		l := newLayout(of)
		if n.layout != nil && n.layout.equals(l) { // groups were edited, and none that is on this node
			l = n.layout
		}
		n.layout, n.number, n.epoch = l, number, epoch
	}
	grants, err := r.store.Grants(ctx, id)
	if err != nil {
		return nil, err
	}
	now, n.granted = now.with(grants, n.granted)
	d, err := compose(revision, n.layout, now)
	if err == nil {
		d.grants = grants
	}
	return d, err
}

// build makes the document of a node that has no layout.
func (r *Renderer) build(ctx context.Context, id, revision int64) (*Document, error) {
	rows, err := r.store.NodeRows(ctx, id)
	if err != nil {
		return nil, err
	}
	rows.Node.Revision = revision
	config, err := nodeconfig.Build(rows)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	return built(revision, body), nil
}

// Delta returns the node's newest document, and what lies between the document with the ETag base
// and that one. The delta is nil where the document is to be sent as a whole.
func (r *Renderer) Delta(ctx context.Context, id int64, base string) (*Document, *delta.Delta, error) {
	d, n, err := r.document(ctx, id)
	if err != nil || !d.differs() || d.ETag == base {
		return d, nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.newest != d { // another one is there already; this one is as good
		return d, nil, nil
	}
	last := &n.versions[len(n.versions)-1]
	for i := range n.versions[:len(n.versions)-1] {
		if n.versions[i].etag != base {
			continue
		}
		s, ok := r.span(n.versions[i].seq, d.now.seq)
		if !ok {
			return d, nil, nil
		}
		r.builders <- struct{}{}
		defer func() { <-r.builders }()
		change, sum, err := between(n.versions[i], d, s.withGrants(n.versions[i].grants, d))
		if err != nil || change == nil {
			return d, nil, err
		}
		last.digest, last.known = sum, true
		return d, change, nil
	}
	return d, nil, nil
}

// Asked makes ready what deltas from the node's newest document need: its digest.
func (r *Renderer) Asked(id int64, d *Document) error {
	n := r.node(id)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.newest != d || !d.differs() {
		return nil
	}
	last := &n.versions[len(n.versions)-1]
	if last.known {
		return nil
	}
	var err error
	if last.digest, err = d.digest(); err == nil {
		last.known = true
	}
	return err
}

// span returns what changed between two numbers.
func (r *Renderer) span(from, until int64) (*span, bool) {
	r.mu.Lock()
	for _, s := range r.spans {
		if s.from == from && s.until == until {
			r.mu.Unlock()
			return s, true
		}
	}
	r.mu.Unlock()
	changes, ok := r.roster.since(from, until)
	if !ok {
		return nil, false
	}
	s := netOf(from, until, changes)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, s)
	if over := len(r.spans) - keptSpans; over > 0 {
		r.spans = slices.Clone(r.spans[over:])
	}
	return s, true
}

func sorted[V any](members map[string]V) []string { return slices.Sorted(maps.Keys(members)) }

var _ Store = (*corestore.Store)(nil)
