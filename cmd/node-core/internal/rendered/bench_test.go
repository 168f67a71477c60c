package rendered

import (
	"fmt"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
)

// BenchmarkDocument measures, with 100,000 clients on five inbounds, the first document after a start
// with its digest, the document of a node more, and what a client more costs from the rows to the
// delta. The edit itself is beside it.
func BenchmarkDocument(b *testing.B) {
	store, err := corestore.Open(b.Context(), b.TempDir())
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(err)
	defer store.Close()
	for i := range 10 {
		_, err := store.BulkUsers(b.Context(), []corestore.NewUser{{User: corestore.User{Name: fmt.Sprint("u", i)}, Subscriptions: make([]corestore.Subscription, 10_000)}}, nil)
		must(err)
	}
	var nodes [2]corestore.Node
	for i := range nodes {
		nodes[i], _, err = store.AddNode(b.Context(), fmt.Sprint("n", i), "", time.Hour)
		must(err)
		for port := range 5 {
			_, err := store.AddProtocol(b.Context(), corestore.Protocol{NodeID: nodes[i].ID, Protocol: "vless", Port: 1000 + port, Config: fmt.Appendf(nil, `{"protocol":"vless","port":%d,"settings":{"decryption":"none"}}`, 1000+port)})
			must(err)
		}
	}
	user, err := store.AddUser(b.Context(), "user")
	must(err)
	var first, second, edit, change time.Duration
	for b.Loop() {
		r := New(store)
		var d [2]*Document
		for i, took := range []*time.Duration{&first, &second} {
			start := time.Now()
			d[i], err = r.Document(b.Context(), nodes[i].ID)
			must(err)
			_, err = d[i].Packed()
			must(err)
			must(r.Asked(nodes[i].ID, d[i]))
			*took += time.Since(start)
		}
		start := time.Now()
		_, _, err = store.AddSubscription(b.Context(), user.ID)
		must(err)
		edit += time.Since(start)
		start = time.Now()
		_, delta, err := r.Delta(b.Context(), nodes[0].ID, d[0].ETag)
		must(err)
		if delta == nil {
			b.Fatal("there is no delta")
		}
		change += time.Since(start)
	}
	for name, took := range map[string]time.Duration{"first-ms": first, "second-ms": second, "edit-ms": edit, "delta-ms": change} {
		b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), name)
	}
}
