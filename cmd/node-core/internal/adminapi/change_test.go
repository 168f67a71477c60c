package adminapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

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

// many is a server with more nodes than the header of a change has room for.
type many struct{ *waiting }

// serving is how many nodes of many serve clients. One more is not registered.
const serving = 101

func newMany(t *testing.T) many {
	t.Helper()
	w := newWaiting(t)
	for i := range serving - 1 {
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
	if _, err := w.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	return many{w}
}

// changes adds a subscription on all nodes, and returns the change of the header.
func (w many) changes() coreapi.Change {
	w.t.Helper()
	began := time.Now()
	_, c, err := w.subscriptionAdd(w.t.Context(), subscriptionArgs{User: "alice"})
	if err != nil {
		w.t.Fatal(err)
	}
	c.began = began
	return w.header(c)
}

// header is the change of the header.
func (w many) header(c changed) (change coreapi.Change) {
	w.t.Helper()
	raw, err := w.toWaitFor(w.t.Context(), c)
	if err != nil || len(raw) > maxChange {
		w.t.Fatalf("the header has %d bytes, %v", len(raw), err)
	}
	if err := json.Unmarshal(raw, &change); err != nil {
		w.t.Fatal(err)
	}
	return change
}

// states asks how the nodes are to a change.
func (w many) states(change coreapi.Change) map[int64]coreapi.State {
	w.t.Helper()
	all, err := w.wait(w.t.Context(), coreapi.WaitArgs{Change: change})
	if err != nil {
		w.t.Fatal(err)
	}
	states := map[int64]coreapi.State{}
	for _, s := range all {
		states[s.Node] = s.State
	}
	if len(states) != len(all) {
		w.t.Errorf("the answer has %d nodes, %d of them different ones", len(all), len(states))
	}
	return states
}

// Where a change concerns more nodes than its header has room for, the header names them together, which is enough to
// wait for all of them.
func TestChangeOfManyNodes(t *testing.T) {
	w := newMany(t)
	change := w.changes()
	if len(change.Nodes) != 1 || change.Refusing == nil || len(change.Refusing) != 0 {
		t.Errorf("got %+v", change)
	}
	revision, err := w.store.Revision(t.Context(), w.ams2.ID)
	if err != nil {
		t.Fatal(err)
	}
	if s := w.states(change); len(s) != serving || s[w.ams2.ID] == coreapi.Runs {
		t.Errorf("the states of %d nodes, ams2 is %s", len(s), s[w.ams2.ID])
	}
	w.applies(w.ams2, revision-1)
	if s := w.states(change); s[w.ams2.ID] == coreapi.Runs {
		t.Errorf("ams2 is %s with the revision before", s[w.ams2.ID])
	}
	w.applies(w.ams2, revision)
	if s := w.states(change); s[w.ams2.ID] != coreapi.Runs {
		t.Errorf("ams2 is %s with the revision", s[w.ams2.ID])
	}
}

// A change of many nodes names some that refuse a part beside all of them, and not too many.
func TestChangeOfManyNodesThatRefuse(t *testing.T) {
	w := newMany(t)
	revision, err := w.store.Revision(t.Context(), w.ams2.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.refuses(w.fra1, revision+1, part("inbound", "in-1"))
	change := w.changes()
	if len(change.Nodes) != 2 || change.Nodes[1].Node != w.fra1.ID || len(change.Refusing) != 1 || change.Refusing[0] != w.fra1.ID {
		t.Errorf("got %+v, want fra1 beside all", change)
	}
	if s := w.states(change); len(s) != serving {
		t.Errorf("the states of %d nodes", len(s))
	}
	nodes, err := w.store.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		w.refuses(n, revision+1, part("inbound", "in-1"))
	}
	change = w.changes()
	if len(change.Nodes) != 1 || change.Refusing != nil {
		t.Errorf("got %+v, want no node that refuses", change)
	}
}

// A change that concerns nodes that serve nobody too waits for them also where it names all together.
func TestChangeOfManyNodesThatServeNobody(t *testing.T) {
	w := newMany(t)
	nodes, err := w.store.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := changed{began: time.UnixMilli(0)}
	for _, n := range nodes {
		c.nodes = append(c.nodes, n.ID)
	}
	for serves, want := range map[bool]int{true: serving, false: serving + 1} {
		c.serving = serves
		change := w.header(c)
		if s := w.states(change); len(change.Nodes) != 1 || len(s) != want {
			t.Errorf("%+v is %d nodes, want %d", change, len(s), want)
		}
	}
}

// A part with a long tag makes a header longer, also where no node is left that has it.
func TestChangeOfNoNode(t *testing.T) {
	w := newWaiting(t)
	if _, err := w.toWaitFor(t.Context(), changed{part: coreapi.Part{Kind: "inbound", Tag: strings.Repeat("t", maxChange)}}); err != nil {
		t.Error(err)
	}
}

// A client has the whole answer before many nodes are woken.
func TestTheAnswerComesBeforeManyNodesAreWoken(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			read, woken := make(chan struct{}), make(chan bool, 1)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				untilAnswered(r.Context(), w, func(ctx context.Context) {
					_, _ = io.WriteString(w, `{"id":1}`)
					answered := ctx.Value(answeredKey{}).(*[]func())
					*answered = append(*answered, func() {
						select {
						case <-read:
							woken <- true
						case <-time.After(10 * time.Second):
							woken <- false
						}
					})
				})
			}))
			server.EnableHTTP2 = protocol == "HTTP/2.0"
			server.StartTLS()
			defer server.Close()
			answer, err := server.Client().Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			close(read)
			if err != nil || string(body) != `{"id":1}` || answer.Proto != protocol {
				t.Errorf("got %q over %s, %v", body, answer.Proto, err)
			}
			if !<-woken {
				t.Error("the answer waits until the nodes are woken")
			}
		})
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
		untilAnswered(t.Context(), httptest.NewRecorder(), func(ctx context.Context) {
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
		synctest.Wait()
		if !woken(next) {
			t.Error("they are not woken after the answer")
		}
		time.Sleep(time.Minute) // the hub remembers for a moment which nodes it has woken
		next = s.hub.Next(2)
		untilAnswered(t.Context(), httptest.NewRecorder(), func(ctx context.Context) {
			s.wake(ctx, ids[2:])
			time.Sleep(wakeAfter)
			synctest.Wait()
			if !woken(next) {
				t.Error("a client that does not read keeps nodes waiting")
			}
		})
	})
}
