package rendered

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"nodeagent/cmd/node-core/internal/corestore"
)

// addClient adds a subscription that every node lets in.
func (w *world) addClient() {
	sub := corestore.Subscription{UserID: w.users[0].ID}
	sub.GroupID = corestore.DefaultGroup
	_, _, err := w.store.InsertSubscription(w.t.Context(), sub)
	w.must(err)
}

// withInbounds gives each node an inbound of VLESS.
func (w *world) withInbounds() {
	for _, node := range w.nodes {
		p := inbounds[0]
		p.NodeID = node.ID
		_, err := w.store.AddProtocol(w.t.Context(), p)
		w.must(err)
	}
}

// Core knows the last documents of a node, and forgets them once nothing was heard of the node for a while.
func TestVersionsAreKeptForAWhile(t *testing.T) {
	w := newWorld(t, 1)
	w.withInbounds()
	r, id := New(w.store), w.nodes[0].ID
	var held []*Document
	for range keptVersions + 1 {
		w.addClient()
		d, err := r.Document(t.Context(), id)
		w.must(err)
		w.must(r.Asked(id, d))
		held = append(held, d)
	}
	has := func(base *Document) bool {
		t.Helper()
		_, change, err := r.Delta(t.Context(), id, base.ETag)
		w.must(err)
		return change != nil
	}
	if has(held[0]) || !has(held[1]) {
		t.Errorf("of %d documents, there are deltas from the first: %t, from the second: %t", len(held), has(held[0]), has(held[1]))
	}
	r.nodes[id].used, r.swept = time.Now().Add(-keptFor-time.Second), time.Time{}
	r.Heard(id)
	if _, err := r.Document(t.Context(), w.nodes[1].ID); err != nil || !has(held[1]) {
		t.Errorf("a node that was heard of is forgotten (%v)", err)
	}
	r.nodes[id].used, r.swept = time.Now().Add(-keptFor-time.Second), time.Time{}
	if _, err := r.Document(t.Context(), w.nodes[1].ID); err != nil || r.nodes[id] != nil || has(held[1]) {
		t.Errorf("a node that was not heard of for %s is remembered (%v)", keptFor, err)
	}
}

// The changes that are kept are bounded, and older documents have no delta.
func TestChangesAreBounded(t *testing.T) {
	r := roster{now: &snapshot{groups: map[int64][]*chunk{}}, byID: map[int64]*corestore.Client{}}
	const more = 100
	var changes []corestore.ClientChange
	for i := range int64(maxLog + more) {
		changes = append(changes, corestore.ClientChange{Seq: i + 1, ID: i % 50, Client: &corestore.Client{ID: i % 50}})
	}
	r.take(changes, maxLog+more)
	if len(r.log) != maxLog {
		t.Errorf("%d changes are kept, want %d", len(r.log), maxLog)
	}
	if _, ok := r.since(more-1, maxLog+more); ok {
		t.Error("changes that were dropped are said to be known")
	}
	if kept, ok := r.since(more, maxLog+more); !ok || len(kept) != maxLog {
		t.Errorf("%d changes are known (%t), want %d", len(kept), ok, maxLog)
	}
}

// gauge counts how many of the store's calls for building a document run at a time.
type gauge struct {
	Store
	now, most atomic.Int64
}

func (g *gauge) Grants(ctx context.Context, id int64) (map[int64]*corestore.Grant, error) {
	if n := g.now.Add(1); n > g.most.Load() {
		g.most.Store(n)
	}
	defer g.now.Add(-1)
	for range 100 { // others get their chance to be here
		runtime.Gosched()
	}
	return g.Store.Grants(ctx, id)
}

// However many requests ask for a changed document, each node's is made once, on as many processors as there
// are at the most, and what nodes share is compressed once for all of them.
func TestADocumentIsMadeOnce(t *testing.T) {
	w := newWorld(t, 1)
	for len(w.nodes) < 4*runtime.GOMAXPROCS(0) {
		node, _, err := w.store.AddNode(t.Context(), w.name(), "", time.Hour)
		w.must(err)
		w.nodes = append(w.nodes, node)
	}
	w.withInbounds()
	for range 600 {
		w.addClient()
	}
	store := &gauge{Store: w.store}
	r := New(store)
	for round := range 3 {
		before := r.Builds()
		w.addClient()
		var asking sync.WaitGroup
		for _, node := range w.nodes {
			for range 5 {
				asking.Go(func() {
					if d, err := r.Document(t.Context(), node.ID); err != nil || d == nil {
						t.Errorf("node %d: %v", node.ID, err)
					}
				})
			}
		}
		asking.Wait()
		if made := r.Builds() - before; made != int64(len(w.nodes)) {
			t.Errorf("round %d: %d documents were made for %d nodes", round, made, len(w.nodes))
		}
	}
	if most := store.most.Load(); most > int64(runtime.GOMAXPROCS(0)) {
		t.Errorf("%d documents were made at a time, on %d processors", most, runtime.GOMAXPROCS(0))
	}
	frames := map[*byte]int{}
	for _, node := range w.nodes[:4] {
		d, err := r.Document(t.Context(), node.ID)
		w.must(err)
		packed, err := d.Packed()
		w.must(err)
		for _, frame := range packed {
			frames[unsafe.SliceData(frame)]++
		}
	}
	shared := 0
	for _, n := range frames {
		if n == 4 {
			shared++
		}
	}
	if parts := len(partsOf(r.nodes[w.nodes[0].ID].newest.layout, r.nodes[w.nodes[0].ID].newest.now)); shared != parts || parts < 4 {
		t.Errorf("%d frames are shared by four nodes, want one for each of %d parts: %s", shared, parts, fmt.Sprint(len(frames)))
	}
}
