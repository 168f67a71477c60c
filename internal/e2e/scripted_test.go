package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
)

// scriptedCore has only the routes of Core's contract and serves what a test gives it: a change
// needs no command and no database.
type scriptedCore struct {
	*httptest.Server

	mu        sync.Mutex
	news      chan struct{} // closed and replaced whenever a member below changes
	revision  int64
	body      []byte
	delta     []byte         // from the revision before to this one; nil where only body leads there
	held      string         // the document that delta changes, and that the node has to hold for it
	running   int64          // the revision that the node's last heartbeat named
	fetched   time.Time      // when the revision was first asked for
	deltas    int            // that were sent
	differs   bool           // publish offers what lies between the document before and the next one too
	failures  []string       // messages of POST /node/error
	details   map[string]any // of the last message
	usage     map[int64]Traffic
	outbounds map[string]Traffic // outbound usage, by tag
	seen      map[string]bool    // idempotency keys
}

func newScriptedCore(tb testing.TB) *scriptedCore {
	tb.Helper()
	c := &scriptedCore{news: make(chan struct{}), running: -1, usage: map[int64]Traffic{}, outbounds: map[string]Traffic{}, seen: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.PathRegister, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, wire.RegisterResponse{AuthKey: "key", NodeID: "1"})
	})
	mux.HandleFunc("POST "+wire.PathHeartbeat, c.heartbeat)
	mux.HandleFunc("GET "+wire.PathConfig, c.config)
	mux.HandleFunc("POST "+wire.PathUsage, c.addUsage)
	mux.HandleFunc("POST "+wire.PathOutboundUsage, c.addOutboundUsage)
	mux.HandleFunc("POST "+wire.PathError, func(w http.ResponseWriter, r *http.Request) {
		var failure wire.ErrorRequest
		_ = json.NewDecoder(r.Body).Decode(&failure)
		c.change(func() { c.failures, c.details = append(c.failures, failure.Message), failure.Details })
		answer(w, wire.OK{OK: true})
	})
	mux.HandleFunc("POST /node/", func(w http.ResponseWriter, _ *http.Request) { answer(w, wire.OK{OK: true}) })
	c.Server = httptest.NewServer(mux)
	tb.Cleanup(c.Close)
	return c
}

// scriptedWorld is an agent that runs under a scripted Core.
type scriptedWorld struct {
	*world
	scripted *scriptedCore
}

func newScriptedWorld(t *testing.T, config string) *scriptedWorld {
	t.Helper()
	w := &scriptedWorld{&world{t: t, ctx: t.Context(), dir: t.TempDir(), progs: programs(t)}, newScriptedCore(t)}
	var err error
	w.agent, err = NewAgent(w.ctx, w.progs, filepath.Join(w.dir, "agent"), config, "--core", w.scripted.URL, "--code", "any")
	must(t, err)
	must(t, w.agent.Start(w.ctx))
	t.Cleanup(func() {
		w.agent.Kill()
		w.showLog("agent", w.agent.process)
	})
	return w
}

// serve publishes services.xray and waits until the node runs it.
func (w *scriptedWorld) serve(clients map[string]wire.ClientRef, xray any) {
	w.t.Helper()
	must(w.t, w.scripted.publish(clients, xray))
	must(w.t, w.scripted.applied(w.ctx))
}

// soleClient is the id of a node's only client, who is user 1.
const soleClient = "11111111-1111-4111-8111-111111111111"

func soleSettings(port int) map[string]any {
	return vnext(port, map[string]any{"id": soleClient, "encryption": "none"})
}

// serveSole serves a VLESS inbound with one client, and the members more of services.xray.
func (w *scriptedWorld) serveSole(port int, more map[string]any) {
	w.t.Helper()
	in := withClients(vlessInbound(port, nil), []any{map[string]any{"id": soleClient}})
	config := map[string]any{"inbounds": []any{with(in, "tag", "in-1")}}
	maps.Copy(config, more)
	w.serve(map[string]wire.ClientRef{soleClient: {UserID: 1}}, config)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the agent would get a broken answer
}

// change changes members and wakes the requests that wait for a change.
func (c *scriptedCore) change(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
	close(c.news)
	c.news = make(chan struct{})
}

// heartbeat holds the request, for as long as Prefer allows, until the node is behind.
func (c *scriptedCore) heartbeat(w http.ResponseWriter, r *http.Request) {
	var beat wire.HeartbeatRequest
	if err := json.NewDecoder(r.Body).Decode(&beat); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	running := int64(-1)
	if beat.Revision != nil {
		running = *beat.Revision
	}
	c.change(func() { c.running = running })
	seconds, _ := strconv.Atoi(strings.TrimPrefix(r.Header.Get(wire.HeaderPrefer), "wait=")) // without the header the request is not held
	held := time.After(time.Duration(seconds) * time.Second)
	for {
		c.mu.Lock()
		behind, news := c.revision != running && c.body != nil, c.news
		c.mu.Unlock()
		if behind {
			beat := wire.HeartbeatResponse{OK: true, NeedSync: true}
			c.change(func() {
				if c.delta != nil && r.Header.Get(delta.HeaderAccept) == delta.Manipulation && r.Header.Get(wire.HeaderNodeConfig) == c.held {
					beat.Delta = c.delta
					c.deltas++
				}
			})
			answer(w, beat)
			return
		}
		select {
		case <-news:
		case <-held:
			answer(w, wire.HeartbeatResponse{OK: true})
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (c *scriptedCore) config(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	body, tag := c.body, fmt.Sprintf("%q", strconv.FormatInt(c.revision, 10))
	if c.fetched.IsZero() {
		c.fetched = time.Now()
	}
	c.mu.Unlock()
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the agent would get a broken answer
}

func (t Traffic) plus(more Traffic) Traffic { return Traffic{t.Up + more.Up, t.Down + more.Down} }

func (c *scriptedCore) addUsage(w http.ResponseWriter, r *http.Request) {
	takeOnce(c, w, r, func(usage wire.UsageRequest) {
		for _, e := range usage.Entries {
			c.usage[e.UserID] = c.usage[e.UserID].plus(Traffic{e.BytesUp, e.BytesDown})
		}
	})
}

func (c *scriptedCore) addOutboundUsage(w http.ResponseWriter, r *http.Request) {
	takeOnce(c, w, r, func(usage wire.OutboundUsageRequest) {
		for _, i := range usage.Items {
			c.outbounds[i.Tag] = c.outbounds[i.Tag].plus(Traffic{i.BytesUp, i.BytesDown})
		}
	})
}

// takeOnce adds what a request has, under the lock, once for each Idempotency-Key.
func takeOnce[T any](c *scriptedCore, w http.ResponseWriter, r *http.Request, add func(T)) {
	var body T
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if key := r.Header.Get(wire.HeaderIdempotencyKey); !c.seen[key] {
		c.seen[key] = true
		add(body)
	}
	answer(w, wire.OK{OK: true})
}

// publish serves services.xray, with clients that reach loopback, as the next revision.
func (c *scriptedCore) publish(clients map[string]wire.ClientRef, xray any) error {
	return c.publishBoth(clients, xray, nil)
}

// publishBoth is publish with services.mtproto, nil for none.
func (c *scriptedCore) publishBoth(clients map[string]wire.ClientRef, xray, mtproto any) error {
	raw, err := json.Marshal(xray)
	if err != nil {
		return fmt.Errorf("encode services.xray: %w", err)
	}
	if raw, err = ReachLoopback(raw); err != nil {
		return err
	}
	services := wire.Services{Xray: raw}
	if mtproto != nil {
		if services.MTProto, err = json.Marshal(mtproto); err != nil {
			return fmt.Errorf("encode services.mtproto: %w", err)
		}
	}
	c.mu.Lock()
	next := c.revision + 1
	c.mu.Unlock()
	body, err := json.Marshal(wire.NodeConfig{Revision: next, ClientMap: clients, Services: services})
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	var between []byte
	held := fmt.Sprintf("%q", strconv.FormatInt(next-1, 10))
	if c.differs && c.body != nil {
		if between, err = deltaBetween(c.body, body, held, fmt.Sprintf("%q", strconv.FormatInt(next, 10))); err != nil {
			return err
		}
	}
	c.change(func() {
		c.revision, c.body, c.delta, c.held, c.fetched, c.failures = next, body, between, held, time.Time{}, nil
	})
	return nil
}

// deltaBetween is the delta from one document to another one.
func deltaBetween(from, to []byte, fromTag, toTag string) ([]byte, error) {
	base, err := delta.Read(from)
	if err != nil {
		return nil, err
	}
	target, err := delta.Read(to)
	if err != nil {
		return nil, err
	}
	d := delta.Between(base, target)
	d.Base, d.ETag = fromTag, toTag
	return d.Append(nil), nil
}

// applied waits until the node runs the last published revision. It returns an error once the
// node reports one.
func (c *scriptedCore) applied(ctx context.Context) error {
	patience := time.After(Patience)
	for {
		c.mu.Lock()
		running, revision, failures, news := c.running, c.revision, c.failures, c.news
		c.mu.Unlock()
		switch {
		case len(failures) > 0:
			return fmt.Errorf("the node reports about revision %d: %s", revision, strings.Join(failures, "; "))
		case running == revision:
			return nil
		}
		select {
		case <-news:
		case <-patience:
			return fmt.Errorf("the node runs revision %d and not %d after %s", running, revision, Patience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
