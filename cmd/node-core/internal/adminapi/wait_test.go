package adminapi

import (
	"context"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// waiting is a server with two registered nodes, fra1 and ams2, each with an inbound.
type waiting struct {
	*Server
	t    *testing.T
	fra1 corestore.Node
	ams2 corestore.Node
}

func newWaiting(t *testing.T) *waiting {
	w := &waiting{Server: newServer(t), t: t}
	if _, err := w.nodeAdd(t.Context(), nodeArgs{Node: "ams2"}); err != nil {
		t.Fatal(err)
	}
	for _, node := range []*corestore.Node{&w.fra1, &w.ams2} {
		name := "fra1"
		if node == &w.ams2 {
			name = "ams2"
		}
		added, err := w.nodeCode(t.Context(), nodeArgs{Node: name})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.store.Register(t.Context(), wire.RegisterRequest{Code: added.Code, Name: name, Host: name, IP: "192.0.2.1"}, ""); err != nil {
			t.Fatal(err)
		}
		if *node, err = w.store.Node(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.AddProtocol(t.Context(), corestore.Protocol{NodeID: node.ID, Tag: "in-1", Protocol: "vless", Port: 1, Config: []byte(`{"protocol":"vless","port":1}`)}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// says calls the store as the node routes do for a request of a node, and wakes those that wait for it.
func (w *waiting) says(node corestore.Node, call func(ctx context.Context) error) {
	w.t.Helper()
	if err := call(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.hub.Reported(node.ID)
}

func (w *waiting) applies(node corestore.Node, revision int64) {
	w.t.Helper()
	w.says(node, func(ctx context.Context) error { return w.store.Applied(ctx, node.ID, "", revision) })
}

func (w *waiting) refuses(node corestore.Node, revision int64, parts ...any) {
	w.t.Helper()
	details := map[string]any{"revision": float64(revision)}
	if len(parts) > 0 {
		details["parts"] = parts
	}
	w.says(node, func(ctx context.Context) error {
		return w.store.AddError(ctx, node.ID, "", wire.ErrorRequest{Code: "config_invalid", Message: "words", Details: details})
	})
}

func part(kind, tag string) any {
	return map[string]any{"kind": kind, "tag": tag, "reason": "why " + tag, "retry": true}
}

// change adds an inbound to fra1, and returns the change for which a command waits.
func (w *waiting) change() coreapi.Change {
	w.t.Helper()
	c, err := w.tryInbound(w.t, "vless", `{"port":2,"tag":"in-2"}`)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.waitsFor(c)
}

func (w *waiting) waitsFor(c changed) coreapi.Change {
	w.t.Helper()
	change := coreapi.Change{Part: c.part}
	for _, id := range c.nodes {
		node, err := w.store.NodeByID(w.t.Context(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		change.Nodes = append(change.Nodes, coreapi.Revision{Node: id, Revision: node.Revision})
	}
	return change
}

// waits starts to wait, and returns the outcome for the first node.
func (w *waiting) waits(change coreapi.Change, wait time.Duration) <-chan coreapi.NodeState {
	out := make(chan coreapi.NodeState, 1)
	go func() {
		states, err := w.wait(w.t.Context(), coreapi.WaitArgs{Change: change, Wait: wait})
		if err != nil || len(states) != len(change.Nodes) {
			w.t.Errorf("got %d states, %v", len(states), err)
			states = make([]coreapi.NodeState, 1)
		}
		out <- states[0]
	}()
	return out
}

func TestWait(t *testing.T) {
	const long = time.Minute
	for name, c := range map[string]struct {
		before, after  func(w *waiting, change coreapi.Change)
		state          coreapi.State
		refused, other string
	}{
		"the node runs it":                   {after: func(w *waiting, c coreapi.Change) { w.applies(w.fra1, c.Nodes[0].Revision) }, state: coreapi.Runs},
		"it runs a later revision":           {after: func(w *waiting, c coreapi.Change) { w.applies(w.fra1, c.Nodes[0].Revision+5) }, state: coreapi.Runs},
		"it ran it before the command asked": {before: func(w *waiting, c coreapi.Change) { w.applies(w.fra1, c.Nodes[0].Revision) }, state: coreapi.Runs},
		"its heartbeat names it": {after: func(w *waiting, c coreapi.Change) {
			w.says(w.fra1, func(ctx context.Context) error {
				_, err := w.store.Heartbeat(ctx, w.fra1.ID, wire.HeartbeatRequest{Revision: &c.Nodes[0].Revision}, corestore.Daemon{})
				return err
			})
		}, state: coreapi.Runs},
		"it refuses the inbound":           {after: func(w *waiting, c coreapi.Change) { w.refuses(w.fra1, c.Nodes[0].Revision, part("inbound", "in-2")) }, state: coreapi.Refuses, refused: "in-2"},
		"it refuses all of it":             {after: func(w *waiting, c coreapi.Change) { w.refuses(w.fra1, c.Nodes[0].Revision) }, state: coreapi.Refuses, refused: ""},
		"it refuses something else of it":  {after: func(w *waiting, c coreapi.Change) { w.refuses(w.fra1, c.Nodes[0].Revision, part("outbound", "o")) }, state: coreapi.Refuses, refused: "o"},
		"it refuses only what it did":      {before: func(w *waiting, c coreapi.Change) { w.refuses(w.fra1, c.Nodes[0].Revision-1, part("inbound", "in-1")) }, after: func(w *waiting, c coreapi.Change) { w.refuses(w.fra1, c.Nodes[0].Revision, part("inbound", "in-1")) }, state: coreapi.Runs, other: "in-1"},
		"the same part, added once more":   {before: func(w *waiting, c coreapi.Change) { w.refuses(w.fra1, c.Nodes[0].Revision-1, part("inbound", "in-2")) }, after: func(w *waiting, c coreapi.Change) { w.refuses(w.fra1, c.Nodes[0].Revision, part("inbound", "in-2")) }, state: coreapi.Refuses, refused: "in-2"},
		"it says something about the past": {before: func(w *waiting, c coreapi.Change) { w.refuses(w.fra1, c.Nodes[0].Revision-1, part("inbound", "in-1")) }, after: func(w *waiting, c coreapi.Change) { w.applies(w.fra1, c.Nodes[0].Revision) }, state: coreapi.Runs},
		"it was removed": {after: func(w *waiting, _ coreapi.Change) {
			w.says(w.fra1, func(ctx context.Context) error { return w.store.RemoveNode(ctx, w.fra1.ID) })
		}, state: coreapi.Refuses},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWaiting(t)
			change := w.change()
			if c.before != nil {
				c.before(w, change)
			}
			out := w.waits(change, long)
			if c.after != nil {
				w.applies(w.ams2, 100) // another node's report is no answer
				select {
				case state := <-out:
					t.Fatalf("it waited for nothing: %+v", state)
				case <-time.After(50 * time.Millisecond):
				}
				c.after(w, change)
			}
			select {
			case state := <-out:
				if state.State != c.state || tags(state.Refused) != c.refused || tags(state.Others) != c.other {
					t.Errorf("got %+v, want %s, refused %q, others %q", state, c.state, c.refused, c.other)
				}
				for _, r := range append(state.Refused, state.Others...) {
					if r.Since.IsZero() || r.Reason == "" {
						t.Errorf("the refusal %+v has no time or no reason", r)
					}
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it is not woken")
			}
		})
	}
}

func tags(refused []corestore.Refusal) string {
	var all []string
	for _, r := range refused {
		all = append(all, r.Tag)
	}
	return strings.Join(all, " ")
}

// A node that does not answer is waited for no longer than was asked, and each further node
// costs no more time.
func TestWaitIsBounded(t *testing.T) {
	w := newWaiting(t)
	w.says(w.ams2, func(ctx context.Context) error {
		_, err := w.store.Heartbeat(ctx, w.ams2.ID, wire.HeartbeatRequest{}, corestore.Daemon{})
		return err
	})
	change := w.change()
	change.Nodes = append(change.Nodes, coreapi.Revision{Node: w.ams2.ID, Revision: 100})
	start := time.Now()
	states, err := w.wait(t.Context(), coreapi.WaitArgs{Change: change, Wait: 200 * time.Millisecond})
	if took := time.Since(start); err != nil || took < 200*time.Millisecond || took > 5*time.Second {
		t.Fatalf("it took %s: %v", took, err)
	}
	if states[0].State != coreapi.Away || states[1].State != coreapi.Waiting || states[1].Since == nil {
		t.Errorf("got %+v, want fra1 away and ams2 heard of", states)
	}
	if _, err := w.wait(t.Context(), coreapi.WaitArgs{Change: change, Wait: coreapi.MaxWait + 1}); err == nil {
		t.Error("it waits for ever")
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.stopping = ctx
	cancel()
	if _, err := w.wait(t.Context(), coreapi.WaitArgs{Change: change, Wait: time.Minute}); err == nil || !strings.Contains(err.Error(), "stops") {
		t.Errorf("got %v while Core stops", err)
	}
}

// Nodes that report while another one is waited for are read once it has reported, or the time is over.
func TestWaitForSeveral(t *testing.T) {
	for name, silent := range map[string]bool{"all report": false, "the first stays silent": true} {
		t.Run(name, func(t *testing.T) {
			w := newWaiting(t)
			change := coreapi.Change{Nodes: []coreapi.Revision{{Node: w.fra1.ID, Revision: 100}, {Node: w.ams2.ID, Revision: 100}}}
			over, states, ended := make(chan struct{}), make([]coreapi.NodeState, 2), make(chan error, 1)
			asked := w.hub.NextReport(w.ams2.ID)
			go func() { ended <- w.waitForAll(t.Context(), change, states, over) }()
			w.applies(w.ams2, 50) // which is too early
			<-asked
			w.applies(w.ams2, 100)
			want := coreapi.Runs
			if silent {
				want = coreapi.Away
				close(over)
			} else {
				w.applies(w.fra1, 100)
			}
			if err := <-ended; err != nil || states[0].State != want || states[1].State != coreapi.Runs {
				t.Errorf("got %+v, %v; want fra1 %s, and that ams2 runs it", states, err, want)
			}
		})
	}
}
