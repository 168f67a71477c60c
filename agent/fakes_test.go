package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/telemt/service"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// fakeCore is a Core whose answers a test sets. What it is told it keeps.
type fakeCore struct {
	mu          sync.Mutex
	heartbeats  []time.Time
	revisions   []*int64
	heartbeat   func(ctx context.Context, r wire.HeartbeatRequest, wait time.Duration) (wire.HeartbeatResponse, error)
	config      []byte
	etag        string
	fetches     int
	configError error
	update      func(etag string) (coreclient.Update, error)
	post        func(path string, body []byte) error
	postContext func(context.Context) error // instead of post; it may wait
	posts       []fakePost
	statuses    func(body []byte) error // the optional route; nil: Core lacks it
	skew        time.Duration
}

type fakePost struct {
	path, key string
	body      string
	at        time.Time
}

func (c *fakeCore) Heartbeat(ctx context.Context, r wire.HeartbeatRequest, _, _ string, wait time.Duration) (wire.HeartbeatResponse, error) {
	c.mu.Lock()
	c.heartbeats = append(c.heartbeats, time.Now())
	c.revisions = append(c.revisions, r.Revision)
	answer := c.heartbeat
	c.mu.Unlock()
	if answer == nil {
		return wire.HeartbeatResponse{OK: true}, nil
	}
	return answer(ctx, r, wait)
}

func (c *fakeCore) Config(_ context.Context, etag string) ([]byte, string, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetches++
	if c.configError != nil {
		return nil, "", false, c.configError
	}
	if etag != "" && etag == c.etag {
		return nil, etag, false, nil
	}
	return c.config, c.etag, true, nil
}

// Update answers as a Core that does not know deltas, unless there is an update.
func (c *fakeCore) Update(ctx context.Context, etag string) (coreclient.Update, error) {
	c.mu.Lock()
	update := c.update
	c.mu.Unlock()
	if update != nil {
		return update(etag)
	}
	body, newETag, changed, err := c.Config(ctx, etag)
	return coreclient.Update{Body: body, ETag: newETag, Changed: changed}, err
}

func (c *fakeCore) Post(ctx context.Context, path, key string, body []byte) error {
	c.mu.Lock()
	instead, statuses := c.postContext, c.statuses
	c.mu.Unlock()
	if path == wire.PathStatus {
		if statuses == nil {
			return status(404)
		}
		return statuses(body)
	}
	if instead != nil {
		return instead(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posts = append(c.posts, fakePost{path, key, string(body), time.Now()})
	if c.post == nil {
		return nil
	}
	return c.post(path, body)
}

func (c *fakeCore) Skew() time.Duration { return c.skew }

func (c *fakeCore) posted(path string) []fakePost {
	c.mu.Lock()
	defer c.mu.Unlock()
	var some []fakePost
	for _, p := range c.posts {
		if p.path == path {
			some = append(some, p)
		}
	}
	return some
}

func status(code int) error { return &coreclient.Error{Route: "POST /", Status: code} }

// fakeXray takes every state, unless told otherwise.
type fakeXray struct {
	mu       sync.Mutex
	applied  []state.State
	restored []state.State
	fail     func(state.State) error
	warnings []string
	status   xray.Status
	ended    time.Time // when Run ended
}

func (x *fakeXray) Apply(_ context.Context, s state.State) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fail != nil {
		if err := x.fail(s); err != nil {
			return err
		}
	}
	x.applied = append(x.applied, s)
	return nil
}

func (x *fakeXray) Restore(_ context.Context, s state.State) error {
	x.restored = append(x.restored, s)
	return nil
}

func (x *fakeXray) Run(ctx context.Context) error {
	<-ctx.Done()
	x.ended = time.Now()
	return nil
}

func (x *fakeXray) Status() xray.Status {
	s := x.status
	s.Warnings = x.warnings
	return s
}

// fakeMTProto takes every service, unless told otherwise.
type fakeMTProto struct {
	mu       sync.Mutex
	applied  []service.Service
	restored []service.Service
	collects int
	fail     error
	failFor  func(service.Service) error // nil for none
	applying func()
	status   telemt.Status
	// collecting is called in Collect; it may wait.
	collecting func()
}

func (m *fakeMTProto) Apply(_ context.Context, s service.Service) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applying != nil {
		m.applying()
	}
	if m.fail != nil {
		return m.fail
	}
	if m.failFor != nil {
		if err := m.failFor(s); err != nil {
			return err
		}
	}
	m.applied = append(m.applied, s)
	return nil
}

func (m *fakeMTProto) Restore(_ context.Context, s service.Service) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restored = append(m.restored, s)
	return nil
}

func (m *fakeMTProto) Collect(context.Context) {
	if m.collecting != nil {
		m.collecting()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.collects++
}

func (m *fakeMTProto) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (m *fakeMTProto) Status() telemt.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// fakeCounters are counters in this process.
type fakeCounters struct {
	mu     sync.Mutex
	values map[uint32][2]uint64
}

func (*fakeCounters) Epoch() string     { return "epoch" }
func (*fakeCounters) Grow(uint32) error { return nil }

func (c *fakeCounters) Read(slot uint32) (up, down uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.values[slot][0], c.values[slot][1]
}

func (c *fakeCounters) add(slot uint32, up, down uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.values[slot]
	c.values[slot] = [2]uint64{v[0] + up, v[1] + down}
}

// node is an agent with fakes around it and a real store.
type node struct {
	*Agent
	core     *fakeCore
	engine   *fakeXray
	mtproto  *fakeMTProto
	counters *fakeCounters
	store    *store.Store
}

func newNode(t *testing.T, db *store.Store) *node {
	t.Helper()
	n := &node{core: &fakeCore{}, engine: &fakeXray{}, mtproto: &fakeMTProto{}, counters: &fakeCounters{values: map[uint32][2]uint64{}}, store: db}
	a, err := New(Config{}, Deps{
		Log: slog.New(slog.DiscardHandler), Core: n.core, Store: db, Counters: n.counters,
		Inbox: NewInbox(), Xray: n.engine, MTProto: n.mtproto,
		Jitter: func(d time.Duration) time.Duration { return d },
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Agent = a
	return n
}

// openStore is called outside the bubbles of synctest: its file lock waits in
// real time.
func openStore(t *testing.T) *store.Store {
	t.Helper()
	db, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

const aliceID = "11111111-1111-4111-8111-111111111111"

func nodeConfig(t *testing.T, revision int64, port int) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"revision":  revision,
		"clientMap": map[string]any{aliceID: map[string]any{"userId": 5, "subscriptionId": 6}},
		"services": map[string]any{"xray": map[string]any{"inbounds": []any{map[string]any{
			"tag": "vless-7", "protocol": "vless", "port": port, "settings": map[string]any{"decryption": "none", "clients": []any{map[string]any{"id": aliceID}}},
		}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// pack is a configuration as the store keeps it.
func pack(t *testing.T, revision int64, body []byte) store.Config {
	t.Helper()
	packed, err := store.Pack(body)
	if err != nil {
		t.Fatal(err)
	}
	return store.Config{Revision: revision, Body: packed}
}

// kept is the revision that the next start serves, 0 for none.
func kept(t *testing.T, db *store.Store) int64 {
	t.Helper()
	history, err := db.History()
	if err != nil {
		t.Fatal(err)
	}
	if history.Current == nil {
		return 0
	}
	return history.Current.Revision
}
