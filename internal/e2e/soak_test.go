package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	soakPause   = 100 * time.Millisecond // between two exchanges of one open connection
	soakRequest = 20 * time.Millisecond  // between two short requests of one client
	soakLimit   = 20 * time.Second       // for one exchange; a longer one counts as dropped
	soakShown   = 20                     // how many failures end the test, and how many changes are shown with each
)

// The soak test makes changes of every kind to a node, one after the other, while connections
// through every kind of inbound move bytes and new ones are opened. None of them may fail, and
// every byte is billed. The changes do not concern the clients that the test watches.
//
// SOAK_SECONDS makes it long (make soak): it makes changes for that many seconds, 1,000 changes
// at least, under 200 connections. SOAK_SEED repeats the changes of a run, which prints it.
//
// The test runs in a network namespace with the kernel setting of
// packaging/90-node-agent.conf.
func TestSoak(t *testing.T) {
	if !inside(t, "{ echo 1 >/proc/sys/net/ipv4/tcp_migrate_req || true; }") {
		return
	}
	seconds, seed := environment(t, "SOAK_SECONDS", 0), environment(t, "SOAK_SEED", time.Now().UnixNano())
	changes, conns, globalEvery := 100, 40, 20
	if seconds > 0 {
		changes, conns, globalEvery = 1000, 200, 50
	}
	t.Logf("SOAK_SEED=%d SOAK_SECONDS=%d", seed, seconds)
	s := newSoak(t, rand.New(rand.NewPCG(uint64(seed), 0)), seconds > 0)
	s.begin(conns)
	began, made := time.Now(), 0
	over := func() bool { return time.Since(began) > time.Duration(seconds)*time.Second }
	for s.failed.Load() < soakShown && (seconds == 0 && made < changes || seconds > 0 && !over()) {
		made++
		s.change(made, made%globalEvery == globalEvery/2)
	}
	took := time.Since(began)
	s.end()
	t.Logf("%d changes in %s: %v", made, took.Round(time.Millisecond), s.node.done)
	t.Logf("%d live connections made %d exchanges, %d connections dropped; %d short requests, %d failed",
		conns, s.exchanges.Load(), s.dropped.Load(), s.requests.Load(), s.failed.Load()-s.dropped.Load())
	if made < changes && s.failed.Load() < soakShown {
		t.Errorf("%d changes were made, want %d; this machine needs more SOAK_SECONDS than %d", made, changes, seconds)
	}
}

// soak is a scripted Core, an agent, and stock clients with their targets.
type soak struct {
	*scriptedWorld
	node    *soakNode
	clients []*Client // of the node's watched inbounds, in their order
	targets []*Target

	mu        sync.Mutex
	changes   []soakChange
	stop      chan struct{}
	stopOnce  sync.Once
	traffic   sync.WaitGroup
	exchanges atomic.Int64
	requests  atomic.Int64
	failed    atomic.Int64 // requests and open connections
	dropped   atomic.Int64 // open connections
}

// soakChange is one change. It ends once the node runs it.
type soakChange struct {
	what         string
	began, ended time.Time
}

func (c soakChange) String() string {
	if c.ended.IsZero() {
		return c.what + " (in progress)"
	}
	return fmt.Sprintf("%s (%s, %s ago)", c.what, c.ended.Sub(c.began).Round(time.Millisecond), time.Since(c.ended).Round(time.Millisecond))
}

// during lists the changes from shortly before a time until now. One of them broke an exchange
// that began then.
func (s *soak) during(since time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var told []string
	for i, c := range s.changes {
		if !c.ended.IsZero() && c.ended.Before(since.Add(-soakPause)) {
			continue
		}
		if len(told) == soakShown {
			return strings.Join(told, "; ") + fmt.Sprintf("; and %d more", len(s.changes)-i)
		}
		told = append(told, c.String())
	}
	return strings.Join(told, "; ")
}

func newSoak(t *testing.T, random *rand.Rand, takeovers bool) *soak {
	t.Helper()
	w := newScriptedWorld(t, quickConfig)
	s := &soak{scriptedWorld: w, stop: make(chan struct{})}
	s.node = newSoakNode(w.world, random, takeovers)
	s.publish()
	for _, in := range s.node.watched {
		s.clients = append(s.clients, w.client(in.outbound))
		s.targets = append(s.targets, w.target())
	}
	return s
}

// publish waits until the node runs the configuration of soakNode.
func (s *soak) publish() {
	s.t.Helper()
	must(s.t, s.scripted.publish(s.node.clientMap(), s.node.service()))
	if err := s.scripted.applied(s.ctx); err != nil {
		s.t.Fatalf("%v; %s", err, s.during(time.Now()))
	}
}

// change makes one change and waits until the node runs it.
func (s *soak) change(number int, global bool) {
	s.t.Helper()
	now := soakChange{what: fmt.Sprintf("%d: %s", number, s.node.change(number, global)), began: time.Now()}
	s.mu.Lock()
	s.changes = append(s.changes, now)
	s.mu.Unlock()
	s.publish()
	s.mu.Lock()
	s.changes[len(s.changes)-1].ended = time.Now()
	s.mu.Unlock()
}

// begin opens connections, uses each once, and then uses them and opens others until stop.
func (s *soak) begin(n int) {
	s.t.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		which := i % len(s.clients)
		conns[i] = s.dial(s.clients[which], s.targets[which])
		// A stock trojan client fails on a large first payload.
		must(s.t, Exchange(conns[i], 0, 1))
	}
	s.t.Cleanup(s.halt) // before the connections are closed, also where the test fails
	for i, conn := range conns {
		s.traffic.Go(func() { s.live(conn, i%len(s.clients)) })
	}
	for which := range s.clients {
		s.traffic.Go(func() { s.short(which) })
	}
}

// halt ends the traffic and waits for its end.
func (s *soak) halt() {
	s.stopOnce.Do(func() { close(s.stop) })
	s.traffic.Wait()
}

// live exchanges over one connection until stop.
func (s *soak) live(conn net.Conn, which int) {
	pace := time.NewTicker(soakPause)
	defer pace.Stop()
	for s.paced(pace) {
		began := time.Now()
		if err := bounded(conn, 1+rand.Int64N(4<<10), 1+rand.Int64N(32<<10)); err != nil {
			s.dropped.Add(1)
			s.fail("live connection", which, began, err)
			return
		}
		s.exchanges.Add(1)
	}
}

// short makes requests, each over a new connection, until stop.
func (s *soak) short(which int) {
	pace := time.NewTicker(soakRequest)
	defer pace.Stop()
	for s.paced(pace) {
		began := time.Now()
		if err := s.request(which); err != nil {
			s.fail("request", which, began, err)
			continue
		}
		s.requests.Add(1)
	}
}

func (s *soak) request(which int) error {
	conn, err := s.clients[which].Dial(s.targets[which].Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	return bounded(conn, 100, 1000)
}

func bounded(conn net.Conn, up, down int64) error { return exchangeWithin(conn, soakLimit, up, down) }

func exchangeWithin(conn net.Conn, limit time.Duration, up, down int64) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	return Exchange(conn, up, down)
}

func (s *soak) paced(pace *time.Ticker) bool {
	select {
	case <-s.stop:
		return false
	case <-pace.C:
		return true
	}
}

func (s *soak) fail(what string, which int, began time.Time, err error) {
	if s.failed.Add(1) <= soakShown {
		s.t.Errorf("%s through %s, begun %s ago: %v; changes: %s", what, s.node.watched[which].tag(),
			time.Since(began).Round(time.Millisecond), err, s.during(began))
	}
}

// end stops the traffic and checks what was billed and that no worker crashed.
func (s *soak) end() {
	s.t.Helper()
	status, err := s.agent.Status(s.ctx)
	must(s.t, err)
	s.halt()
	if takeovers := s.node.done["observatory"]; status.Engines.Xray.Restarts != takeovers {
		s.t.Errorf("the worker was replaced %d times, want %d, for the observatory alone", status.Engines.Xray.Restarts, takeovers)
	}
	s.stopAgent()
	s.scripted.mu.Lock()
	defer s.scripted.mu.Unlock()
	for i, in := range s.node.watched {
		if have, want := s.scripted.usage[in.client.user], s.targets[i].Traffic(); have != want {
			s.t.Errorf("through %s: Core was told %+v, the target counted %+v", in.tag(), have, want)
		}
	}
	if s.exchanges.Load() == 0 || s.requests.Load() == 0 {
		s.t.Error("nothing was moved: nothing was tested")
	}
}
