package agent

import (
	"maps"
	"slices"
	"testing"
	"time"

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

// A grant that comes, changes or goes is a change of clients, on all inbounds of a person or on one alone, and
// holds on all. Its slot keeps counting.
func TestAGrantIsAChange(t *testing.T) {
	n := newNode(t, openStore(t))
	w := newWorld()
	w.revision, w.mtproto["a"], w.mtproto["b"] = 1, 1, 2
	if refused := n.tryApply(t.Context(), w.body(), w.etag()); refused != nil {
		t.Fatal(refused.reason)
	}
	everywhere := func(limit int) {
		for tag := range w.clients {
			w.limits[tag]["a"] = limit
		}
		w.bounds["a"] = limit
	}
	granted := func() (slots []uint32, left []int64) {
		for _, tag := range n.running.xray.Tags() {
			for _, c := range n.running.xray.Inbounds[tag].Clients {
				if c.Grant != nil && c.Key == "a" {
					used, _ := n.counters.Read(c.Grant.Slot)
					slots, left = append(slots, c.Grant.Slot), append(left, c.Grant.Until-int64(used))
				}
			}
		}
		for _, c := range n.running.mtproto.Inbounds[0].Clients {
			if c.Grant != nil && c.ID == "a" {
				used, _ := n.counters.Read(c.Grant.Slot)
				slots, left = append(slots, c.Grant.Slot), append(left, c.Grant.Until-int64(used))
			}
		}
		return slots, left
	}
	var slot uint32
	for _, c := range []struct {
		what  string
		edit  func()
		has   bool
		other bool // another id, which has another slot
		left  int64
	}{
		{"on one inbound", func() { w.limits["in-3"]["a"] = grantLimit }, true, true, 1 << 40},
		{"on all of them", func() { everywhere(grantLimit) }, true, false, 1<<40 - 100},
		{"more bytes", func() { everywhere(grantLimit + 2) }, true, false, 1<<41 - 200},
		{"another id", func() { everywhere(grantLimit + 1) }, true, true, 1 << 40},
		{"one client goes", func() { delete(w.clients["in-1"], "a") }, true, false, 1<<40 - 100},
		{"another client changes", func() { w.clients["in-2"]["b"] = 7 }, true, false, 1<<40 - 200},
		{"the first id again", func() { everywhere(grantLimit + 2) }, true, true, 1<<41 - 300},
		{"none", func() { everywhere(0) }, false, false, 0},
	} {
		before, beforeTag := w.body(), w.etag()
		w.revision++
		c.edit()
		d := deltaFrom(t, before, w.body(), beforeTag, w.etag())
		if body, err := n.changeOrBody(t.Context(), d, d.Append(nil)); err != nil || body != nil {
			t.Fatalf("%s: it is no change: the error is %v", c.what, err)
		}
		slots, left := granted()
		switch {
		case !c.has && len(slots) > 0:
			t.Errorf("%s: there are grants", c.what)
		case c.has && (len(slots) != countOf(w, "a")+1 || len(slices.Compact(slots)) != 1):
			t.Errorf("%s: the slots are %v", c.what, slots)
		case c.has && (left[0] != c.left || (slots[0] != slot) != c.other):
			t.Errorf("%s: %d bytes are left in slot %d, want %d; it was %d", c.what, left[0], slots[0], c.left, slot)
		}
		if c.has {
			slot = slots[0]
			n.counters.add(slot, 100, 0)
			if err := n.store.Collect(time.Now(), n.counters); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// countOf returns on how many inbounds of Xray a client is.
func countOf(w *world, key string) (n int) {
	for _, of := range w.clients {
		if of[key] != 0 {
			n++
		}
	}
	return n
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
