package nodeapi

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/agent"
	"nodeagent/agent/identity"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/coreclient"
	"nodeagent/internal/secret"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/telemt/service"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// night is a Core with its real store and routes, and the daemon of one node with its real
// store, whose engines only note what they are told. Answers of Core can be lost.
type night struct {
	t        *rapid.T
	dir      string
	hub      *hub.Hub
	store    *corestore.Store
	server   *httptest.Server
	lose     atomic.Bool // the next answer
	nodeID   int64
	state    string // the node's state folder
	db       *store.Store
	node     *identity.Node
	stop     func()
	engine   *notingEngine
	counters *mapCounters
	counted  map[int64]int64 // bytes by subscription
	undone   map[int64]int64 // bytes that Core had and that a restore took from it
	copies   []string
	names    int
}

// notingEngine is an Xray that serves whatever it is told.
type notingEngine struct {
	mu  sync.Mutex
	now state.State
}

func (e *notingEngine) Apply(_ context.Context, s state.State) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = s
	return nil
}
func (e *notingEngine) Restore(ctx context.Context, s state.State) error { return e.Apply(ctx, s) }
func (*notingEngine) Run(ctx context.Context) error                      { <-ctx.Done(); return nil }

func (*notingEngine) Status() xray.Status { return xray.Status{State: "running"} }

// served returns the slots of the clients that are served, by their keys.
func (e *notingEngine) served() map[string]uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	slots := map[string]uint32{}
	for _, in := range e.now.Inbounds {
		for _, c := range in.Clients {
			slots[c.Key] = c.Slot
		}
	}
	return slots
}

type noMTProto struct{}

func (noMTProto) Apply(context.Context, service.Service) error   { return nil }
func (noMTProto) Restore(context.Context, service.Service) error { return nil }
func (noMTProto) Collect(context.Context)                        {}
func (noMTProto) Run(ctx context.Context) error                  { <-ctx.Done(); return nil }
func (noMTProto) Status() telemt.Status                          { return telemt.Status{} }

type mapCounters struct {
	mu     sync.Mutex
	values map[uint32]uint64
}

func (*mapCounters) Epoch() string     { return "one" }
func (*mapCounters) Grow(uint32) error { return nil }
func (c *mapCounters) Read(slot uint32) (up, down uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.values[slot], 0
}

func (n *night) must(err error) {
	if err != nil {
		n.t.Fatal(err)
	}
}

// openCore starts Core on its folder, at a new address.
func (n *night) openCore() {
	var err error
	n.store, err = corestore.Open(context.Background(), n.dir)
	n.must(err)
	n.hub = hub.New()
	stopping, stop := context.WithCancel(context.Background())
	routes := New(stopping, n.store, n.hub, slog.New(slog.DiscardHandler)).Handler()
	n.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.lose.CompareAndSwap(true, false) { // Core does what it is asked for, and nobody hears of it
			routes.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		routes.ServeHTTP(w, r)
	}))
	n.server.Config.RegisterOnShutdown(stop)
	n.t.Cleanup(stop)
}

func (n *night) closeCore() {
	n.server.CloseClientConnections()
	n.server.Close()
	n.must(n.store.Close())
}

func (n *night) startDaemon() {
	var err error
	n.db, err = store.Open(n.state)
	n.must(err)
	log := slog.New(slog.DiscardHandler)
	boot := rand.Text()
	n.node, err = identity.Open(n.db, func(id store.Identity, _ func() string) (identity.Core, error) {
		return coreclient.New(coreclient.Config{CoreURL: id.CoreURL, AuthKey: id.AuthKey, Boot: boot}, log)
	}, "", log)
	n.must(err)
	n.engine = &notingEngine{}
	a, err := agent.New(agent.Config{HeartbeatInterval: 5 * time.Millisecond, HeartbeatWait: time.Second, CollectInterval: 10 * time.Millisecond, ShutdownDelivery: time.Second}, agent.Deps{
		Log: log, Core: n.node, CoreChanged: n.node.Changed(), Store: n.db, Counters: n.counters, Inbox: agent.NewInbox(), Xray: n.engine, MTProto: noMTProto{},
		Jitter: func(d time.Duration) time.Duration { return min(d, 20*time.Millisecond) },
	})
	n.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	n.stop = func() {
		cancel()
		n.must(errors.Join(<-ended, n.db.Close()))
	}
}

// traffic moves bytes for each client that is served.
func (n *night) traffic() {
	subs := n.subscriptions()
	n.counters.mu.Lock()
	defer n.counters.mu.Unlock()
	for key, slot := range n.engine.served() {
		if id, known := subs[key]; known {
			n.counters.values[slot] += 100
			n.counted[id] += 100
		}
	}
}

// subscriptions returns the ids of the enabled subscriptions that Core knows, by UUID.
func (n *night) subscriptions() map[string]int64 {
	all, err := n.store.Subscriptions(context.Background())
	n.must(err)
	ids := map[string]int64{}
	for _, s := range all {
		if s.Enabled {
			ids[s.UUID] = s.ID
		}
	}
	return ids
}

func (n *night) add() {
	n.names++
	user, err := n.store.AddUser(context.Background(), fmt.Sprintf("user %d", n.names))
	n.must(err)
	_, nodes, err := n.store.AddSubscription(context.Background(), user.ID)
	n.must(err)
	n.hub.Changed(nodes...)
}

func (n *night) disable() {
	subs := n.subscriptions()
	if len(subs) == 0 {
		return
	}
	uuid := rapid.SampledFrom(slices.Sorted(maps.Keys(subs))).Draw(n.t, "disabled")
	_, nodes, err := n.store.EnableSubscription(context.Background(), uuid, false)
	n.must(err)
	n.hub.Changed(nodes...)
}

func (n *night) copyCore() {
	file := filepath.Join(n.dir, fmt.Sprintf("copy-%d", len(n.copies)))
	n.must(corestore.Backup(context.Background(), n.dir, file))
	n.copies = append(n.copies, file)
}

// sums returns the bytes up that Core has counted, by subscription.
func (n *night) sums() map[int64]int64 {
	rows, err := n.store.Usage(context.Background(), 1_000_000)
	n.must(err)
	sums := map[int64]int64{}
	for _, r := range rows {
		sums[*r.SubscriptionID] += r.BytesUp
	}
	return sums
}

// restoreCore sets Core back to one of the copies, by the command or by a copy of the file.
func (n *night) restoreCore() {
	if len(n.copies) == 0 {
		return
	}
	from := rapid.SampledFrom(n.copies).Draw(n.t, "copy")
	before := n.sums()
	n.closeCore()
	if rapid.Bool().Draw(n.t, "by the command") {
		_, err := corestore.Restore(context.Background(), from, n.dir, time.Now())
		n.must(err)
	} else {
		raw, err := os.ReadFile(from)
		n.must(err)
		n.must(os.WriteFile(filepath.Join(n.dir, "core.db"), raw, 0o600))
	}
	n.openCore()
	after := n.sums()
	for id, bytes := range before {
		n.undone[id] += bytes - after[id]
	}
	n.must(n.node.SetCore(context.Background(), identity.Move{URL: n.server.URL}))
}

// agree waits until the daemon serves exactly whom Core knows.
func (n *night) agree() {
	deadline := time.Now().Add(20 * time.Second)
	for {
		want, have := n.subscriptions(), n.engine.served()
		if maps.EqualFunc(want, have, func(int64, uint32) bool { return true }) {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the node serves %v, and Core knows %v", have, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// billed returns an error unless Core has counted each byte once. A restore may have taken bytes from it (undone).
func (n *night) billed() error {
	have := n.sums()
	for id, counted := range n.counted {
		if have[id] > counted || have[id] < counted-n.undone[id] {
			return fmt.Errorf("subscription %d moved %d bytes, of which restores took %d, and Core has %d", id, counted, n.undone[id], have[id])
		}
	}
	return nil
}

// Edits, copies, restores, moves, restarts and lost answers come in any order. In the end the
// node serves exactly whom Core knows, and Core has each byte once, but for those that a
// restore took from it. Each try writes to the disk hundreds of times, so that there are few;
// -rapid.checks=100 makes more.
func TestWhateverHappensAtNight(t *testing.T) {
	set := func(n string) {
		if err := flag.Set("rapid.checks", n); err != nil {
			t.Fatal(err)
		}
	}
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		set("8")
		defer set(checks.DefValue)
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := &night{
			t: rt, dir: t.TempDir(), state: t.TempDir(), counters: &mapCounters{values: map[uint32]uint64{}},
			counted: map[int64]int64{}, undone: map[int64]int64{},
		}
		n.openCore()
		ctx := context.Background()
		node, code, err := n.store.AddNode(ctx, "node", "", time.Hour)
		n.must(err)
		n.nodeID = node.ID
		_, err = n.store.AddProtocol(ctx, corestore.Protocol{NodeID: node.ID, Protocol: "vless", Port: 443, Config: []byte(`{"protocol":"vless","port":443,"settings":{"decryption":"none"}}`)})
		n.must(err)
		n.register(code)
		n.add()
		n.startDaemon()
		steps := map[string]func(){
			"add": n.add, "disable": n.disable, "copy": n.copyCore, "restore": n.restoreCore, "traffic": n.traffic, "agree": n.agree,
			"lose an answer": func() { n.lose.Store(true) },
			"restart":        func() { n.stop(); n.startDaemon() },
			"move": func() {
				n.closeCore()
				n.openCore()
				n.must(n.node.SetCore(ctx, identity.Move{URL: n.server.URL}))
			},
			"rotate": func() { n.must(n.store.RotateKey(ctx, n.nodeID)); n.hub.Changed(n.nodeID) },
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			steps[rapid.SampledFrom(slices.Sorted(maps.Keys(steps))).Draw(rt, "step")]()
		}
		n.lose.Store(false)
		n.agree()
		n.traffic()
		n.stop()
		n.startDaemon() // which delivers what the last one left
		err = n.billed()
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); err = n.billed() {
			time.Sleep(2 * time.Millisecond)
		}
		n.stop()
		n.must(errors.Join(err, n.billed()))
		n.closeCore()
	})
}

func (n *night) register(code string) {
	client, err := coreclient.New(coreclient.Config{CoreURL: n.server.URL}, slog.New(slog.DiscardHandler))
	n.must(err)
	db, err := store.Open(n.state)
	n.must(err)
	r := agent.Registration{Name: "node", Host: "host"}
	r.Token.CoreURL, r.Token.Code = n.server.URL, secret.Text(code)
	_, err = agent.Register(context.Background(), r, client, db)
	n.must(errors.Join(err, db.Close()))
}
