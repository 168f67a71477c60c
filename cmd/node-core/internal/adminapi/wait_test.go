package adminapi

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
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

// says stores what a node said, as the node routes do, and wakes who waits.
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

// change adds an inbound to fra1, and returns what a command waits for.
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

// Only nodes that serve clients are waited for where a subscription changes.
func TestWhomAChangeConcerns(t *testing.T) {
	w := newWaiting(t)
	if _, err := w.nodeAdd(t.Context(), nodeArgs{Node: "new"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	_, c, err := w.subscriptionAdd(t.Context(), subscriptionArgs{User: "alice"})
	if err != nil || len(c.nodes) != 3 {
		t.Fatalf("%d nodes, %v", len(c.nodes), err)
	}
	raw, err := w.toWaitFor(t.Context(), c)
	if err != nil || strings.Count(string(raw), `"revision"`) != 2 {
		t.Errorf("it waits for %s (%v), want the two nodes that serve", raw, err)
	}
	if _, _, err := w.store.EditNode(t.Context(), "ams2", func(n *corestore.Node) error { n.Maintenance = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if raw, err = w.toWaitFor(t.Context(), c); err != nil || strings.Count(string(raw), `"revision"`) != 1 {
		t.Errorf("it waits for %s (%v), want no node in maintenance", raw, err)
	}
	c, err = w.tryInbound(t, "vless", `{"port":3}`)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = w.toWaitFor(t.Context(), c); err != nil || strings.Count(string(raw), `"revision"`) != 1 {
		t.Errorf("it waits for %s (%v), want fra1 alone", raw, err)
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

// A change names the nodes that refuse a part already, so that a command asks about these alone.
func TestChangeNamesNodesThatRefuse(t *testing.T) {
	w := newWaiting(t)
	if _, err := w.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	refusing := func(want string) {
		t.Helper()
		_, c, err := w.subscriptionAdd(t.Context(), subscriptionArgs{User: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := w.toWaitFor(t.Context(), c)
		if err != nil || !strings.HasSuffix(string(raw), `"refusing":`+want+"}") {
			t.Errorf("got %s (%v), want that %s refuse", raw, err, want)
		}
	}
	refusing("[]")
	w.refuses(w.ams2, w.ams2.Revision+1, part("inbound", "in-1"))
	refusing(fmt.Sprintf("[%d]", w.ams2.ID))
}

// Where a change concerns more nodes than its header has room for, the header names them together. What it
// says is enough to wait for all of them, and to ask about those that refuse something.
func TestChangeOfManyNodes(t *testing.T) {
	w := newWaiting(t)
	for i := range 100 {
		added, err := w.nodeAdd(t.Context(), nodeArgs{Node: fmt.Sprint("new-", i)})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue // it is not registered, and serves nobody
		}
		if _, _, err := w.store.Register(t.Context(), wire.RegisterRequest{Code: added.Code, Name: "n", Host: "h", IP: "192.0.2.1"}, ""); err != nil {
			t.Fatal(err)
		}
		node, err := w.store.Node(t.Context(), fmt.Sprint("new-", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.AddProtocol(t.Context(), corestore.Protocol{NodeID: node.ID, Tag: "in-1", Protocol: "vless", Port: 1, Config: []byte(`{"protocol":"vless","port":1}`)}); err != nil {
			t.Fatal(err)
		}
	}
	const serving = 101
	if _, err := w.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	changes := func() (change coreapi.Change) {
		t.Helper()
		began := time.Now()
		_, c, err := w.subscriptionAdd(t.Context(), subscriptionArgs{User: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		c.began = began
		raw, err := w.toWaitFor(t.Context(), c)
		if err != nil || len(raw) > maxChange {
			t.Fatalf("the header has %d bytes, %v", len(raw), err)
		}
		if err := json.Unmarshal(raw, &change); err != nil {
			t.Fatal(err)
		}
		return change
	}
	states := func(change coreapi.Change) map[int64]coreapi.State {
		t.Helper()
		all, err := w.wait(t.Context(), coreapi.WaitArgs{Change: change})
		if err != nil {
			t.Fatal(err)
		}
		states := map[int64]coreapi.State{}
		for _, s := range all {
			states[s.Node] = s.State
		}
		if len(states) != len(all) {
			t.Errorf("the answer has %d nodes, %d of them different ones", len(all), len(states))
		}
		return states
	}
	change := changes()
	if len(change.Nodes) != 1 || change.Refusing == nil || len(change.Refusing) != 0 {
		t.Errorf("got %+v", change)
	}
	revision, err := w.store.Revision(t.Context(), w.ams2.ID)
	if err != nil {
		t.Fatal(err)
	}
	if s := states(change); len(s) != serving || s[w.ams2.ID] == coreapi.Runs {
		t.Errorf("the states of %d nodes, ams2 is %s", len(s), s[w.ams2.ID])
	}
	w.applies(w.ams2, revision-1)
	if s := states(change); s[w.ams2.ID] == coreapi.Runs {
		t.Errorf("ams2 is %s with the revision before", s[w.ams2.ID])
	}
	w.applies(w.ams2, revision)
	if s := states(change); s[w.ams2.ID] != coreapi.Runs {
		t.Errorf("ams2 is %s with the revision", s[w.ams2.ID])
	}
	w.refuses(w.fra1, revision+1, part("inbound", "in-1"))
	change = changes()
	if len(change.Nodes) != 2 || change.Nodes[1].Node != w.fra1.ID || len(change.Refusing) != 1 || change.Refusing[0] != w.fra1.ID {
		t.Errorf("got %+v, want fra1 beside all", change)
	}
	if s := states(change); len(s) != serving {
		t.Errorf("the states of %d nodes", len(s))
	}
	if nodes, err := w.store.Nodes(t.Context()); err != nil {
		t.Fatal(err)
	} else {
		for _, n := range nodes {
			w.refuses(n, revision+1, part("inbound", "in-1"))
		}
	}
	change = changes()
	if len(change.Nodes) != 1 || change.Refusing != nil {
		t.Errorf("got %+v, want that it is not said who refuses", change)
	}
}

// Many nodes are woken once the command has its answer, and also where nobody reads that.
func TestManyNodesAreWokenAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{hub: hub.New()}
		var ids []int64
		for id := range int64(fewNodes + 10) {
			ids = append(ids, id)
		}
		woken := func(next <-chan struct{}) bool {
			select {
			case <-next:
				return true
			default:
				return false
			}
		}
		next := s.hub.Next(0)
		untilAnswered(t.Context(), func(ctx context.Context) {
			s.wake(ctx, ids[:1])
			if !woken(next) {
				t.Error("one node waits for the answer")
			}
			next = s.hub.Next(1)
			s.wake(ctx, ids[1:])
			if woken(next) {
				t.Error("many nodes do not wait for the answer")
			}
		})
		if !woken(next) {
			t.Error("they are not woken after the answer")
		}
		time.Sleep(time.Minute) // the hub remembers whom it has woken
		next = s.hub.Next(2)
		untilAnswered(t.Context(), func(ctx context.Context) {
			s.wake(ctx, ids[2:])
			time.Sleep(wakeAfter)
			synctest.Wait()
			if !woken(next) {
				t.Error("a client that does not read keeps nodes waiting")
			}
		})
	})
}
