package agent

import (
	"maps"
	"slices"
	"testing"

	"nodeagent/xray/state"
)

// A client that comes, one that changes and one that goes are a change of clients on an inbound of
// each protocol: the document is not parsed as a whole.
func TestClientsOfEachProtocolAreAChange(t *testing.T) {
	edit := map[string]func(clients map[string]int){
		"comes":   func(clients map[string]int) { clients["c"] = 3 },
		"changes": func(clients map[string]int) { clients["b"] = 4 },
		"goes":    func(clients map[string]int) { delete(clients, "b") },
	}
	for _, tag := range append(slices.Sorted(maps.Keys(newWorld().protocol)), "mt-4") {
		for what, edit := range edit {
			t.Run(tag+"/"+what, func(t *testing.T) {
				n := newNode(t, openStore(t))
				w := newWorld()
				w.revision, w.mtproto["a"], w.mtproto["b"], w.refs["c"] = 1, 1, 2, 3
				w.clients["mt-4"] = w.mtproto
				clients := w.clients[tag]
				delete(w.clients, "mt-4")
				before, beforeTag := w.body(), w.etag()
				if refused := n.tryApply(t.Context(), before, beforeTag); refused != nil {
					t.Fatal(refused.reason)
				}
				w.revision++
				edit(clients)
				d := deltaFrom(t, before, w.body(), beforeTag, w.etag())
				body, err := n.changeOrBody(t.Context(), d, d.Append(nil))
				if err != nil || body != nil {
					t.Fatalf("it is no change: the error is %v", err)
				}
				got := n.engine.applied[len(n.engine.applied)-1].Clients() + n.running.mtproto.Clients()
				want := len(w.mtproto)
				for _, of := range w.clients {
					want += len(of)
				}
				if got != want {
					t.Errorf("the node lets in %d clients, want %d", got, want)
				}
			})
		}
	}
}

// The order in which a document lists accounts is no difference: a document that is put together
// again lists them in another one, and the inbound is not replaced.
func TestOrderOfAccountsIsNoDifference(t *testing.T) {
	n := newNode(t, openStore(t))
	w := newWorld()
	w.revision = 1
	if refused := n.tryApply(t.Context(), w.body(), w.etag()); refused != nil {
		t.Fatal(refused.reason)
	}
	again, err := documentAfter(w.body(), deltaFrom(t, w.body(), w.body(), w.etag(), w.etag()))
	if err != nil {
		t.Fatal(err)
	}
	if refused := n.tryApply(t.Context(), again, w.etag()); refused != nil {
		t.Fatal(refused.reason)
	}
	applied := n.engine.applied
	if ops := state.Diff(applied[0], applied[len(applied)-1]); len(ops) != 0 {
		t.Errorf("%d operations for the same document in another order, the first is %s %s", len(ops), ops[0].Kind, ops[0].Tag)
	}
}
