package rendered

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
)

// The grant of a client stands in the documents of the nodes on which it is seen or may come, and the
// documents are what Build makes. A delta leads to it, and from it to the next one.
func TestGrantsAreInDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	ctx := t.Context()
	for _, node := range w.nodes[:2] {
		for _, p := range inbounds[:6] {
			p.NodeID, p.Listen = node.ID, "0.0.0.0"
			_, err := w.store.AddProtocol(ctx, p)
			w.must(err)
		}
	}
	var near corestore.Subscription
	for i := range 600 { // more than a chunk has
		sub, _, err := w.store.InsertSubscription(ctx, corestore.Subscription{UserID: w.users[0].ID, Terms: corestore.Terms{LimitBytes: 1_000_000}})
		w.must(err)
		if i == 300 {
			near = sub
		}
	}
	r := New(w.store)
	var before []*Document
	for _, node := range w.nodes[:2] {
		d, err := r.Document(ctx, node.ID)
		w.must(err)
		w.must(r.Asked(node.ID, d))
		before = append(before, d)
	}
	enforcing, stop := context.WithCancel(ctx)
	ended, changed := make(chan struct{}), make(chan int64, 100)
	go func() {
		defer close(ended)
		w.store.Enforce(enforcing, func(nodes ...int64) {
			for _, id := range nodes {
				changed <- id
			}
		}, func(err error) { t.Error(err) })
	}()
	defer func() { stop(); <-ended }()
	use := func(bytes int64) {
		_, err := w.store.AddUsage(ctx, w.nodes[0].ID, fmt.Sprint(bytes), []wire.UsageEntry{
			{UserID: near.UserID, SubscriptionID: &near.ID, NodeProtocolID: 1, BytesDown: bytes, RecordedAt: time.Now().Truncate(time.Minute)},
		})
		w.must(err)
	}
	use(900_000)
	for told := map[int64]bool{}; !told[w.nodes[0].ID] || !told[w.nodes[1].ID]; {
		told[<-changed] = true
	}
	for i, node := range w.nodes[:2] {
		d, change, err := r.Delta(ctx, node.ID, before[i].ETag)
		w.must(err)
		raw := jsonOf(t, d)
		w.sameAsBuild("with a grant", node.ID, raw)
		if got := bytes.Count(raw, []byte(`"grant":{"id":"`)); got != 6 || change == nil {
			t.Errorf("the document of node %d has the grant %d times, and a delta: %t", i, got, change != nil)
		}
		if change != nil {
			w.leadsTo(before[i], change, raw)
		}
		w.must(r.Asked(node.ID, d))
		before[i] = d
	}
	// Another client changes meanwhile, and then the grant and a client together.
	other, _, err := w.store.InsertSubscription(ctx, corestore.Subscription{UserID: w.users[0].ID})
	w.must(err)
	d, change, err := r.Delta(ctx, w.nodes[0].ID, before[0].ETag)
	w.must(err)
	if change == nil {
		t.Fatal("there is no delta from a document with a grant")
	}
	w.leadsTo(before[0], change, jsonOf(t, d))
	if raw := jsonOf(t, d); !bytes.Contains(raw, []byte(other.UUID)) || bytes.Count(raw, []byte(`"grant":{"id":"`)) != 6 {
		t.Errorf("the document lacks the client or the grant: %s", raw)
	}
	before[0] = d
	use(100_000)
	<-changed // the limit is reached on all nodes
	for i, node := range w.nodes[:2] {
		for {
			d, change, err := r.Delta(ctx, node.ID, before[i].ETag)
			w.must(err)
			raw := jsonOf(t, d)
			if !bytes.Contains(raw, []byte(near.UUID)) {
				w.sameAsBuild("limited", node.ID, raw)
				if change == nil {
					t.Errorf("there is no delta to the document of node %d without the client", i)
				} else {
					w.leadsTo(before[i], change, raw)
				}
				break
			}
			<-changed
		}
	}
}
