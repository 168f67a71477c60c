package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// attackTime is how long one round of attacks lasts.
	attackTime = 2 * time.Second
	// hostileMB is the most memory that the worker may use, in megabytes. Each connection of a
	// crowd may add crowdKB.
	hostileMB, crowdKB = 200, 40
	// leakSlack is how many goroutines more are no leak after some thousand attacks.
	leakSlack = 150
	// hostilePatience is how long a real client may wait for its bytes, on a machine that does other things
	// too. A client that is locked out waits for ever.
	hostilePatience = 2 * time.Minute
	// seldom is how many exchanges come before a new connection on an endpoint where old
	// connections linger.
	seldom = 50
)

// Clients with unknown credentials, replays and garbage attack every inbound. The real clients
// are served all the time, and the worker's memory and goroutines stay as they were.
//
// HOSTILE_SEED repeats the attacks of a run that printed its seed. HOSTILE_CONNECTIONS is the
// number of connections of the crowd.
func TestHostileClients(t *testing.T) {
	seed, crowd := environment(t, "HOSTILE_SEED", time.Now().UnixNano()), int(environment(t, "HOSTILE_CONNECTIONS", 5000))
	t.Logf("HOSTILE_SEED=%d HOSTILE_CONNECTIONS=%d", seed, crowd)
	h := newHostile(t)
	h.serveAll()
	h.rest(t)
	t.Run("attacks", func(t *testing.T) {
		first := h.attack(t, uint64(seed))
		second := h.attack(t, uint64(seed)+1)
		if second > first*1.25+10 {
			t.Errorf("the worker held %.0f MB after one round of attacks and %.0f after two", first, second)
		}
	})
	t.Run("a crowd from one address", func(t *testing.T) { h.crowd(t, crowd) })
	close(h.stop)
	h.serving.Wait()
	h.wantExact()
	t.Logf("the agent wrote %d KB of log", (len(h.agent.Log())-h.startLog)/1000)
}

// hostile is a node with an endpoint for every protocol. Alice uses each of them all the time.
// Mallory has an account too, and records what her client sends.
type hostile struct {
	*world
	alice, mallory Subscription
	endpoints      []*endpoint
	stop           chan struct{}
	serving        sync.WaitGroup
	pause          sync.RWMutex // each exchange holds it for reading
	start          workerStatus
	startLog       int
}

// endpoint is an inbound and its real client.
type endpoint struct {
	hostileRow
	protocol  Protocol
	target    *Target // only Alice's client uses it
	client    *Client
	exchanges atomic.Int64
	flight    []byte   // what Mallory's client sent over its first connection
	datagrams [][]byte // what it sent over UDP
}

func (d *endpoint) address() string { return net.JoinHostPort("127.0.0.1", itoa(d.protocol.Port)) }

func newHostile(t *testing.T) *hostile {
	t.Helper()
	h := &hostile{world: newWorld(t), stop: make(chan struct{})}
	site, cert := h.quietSite()
	certFile, keyFile := h.writeCert(cert)
	for _, row := range hostileRows(certFile, keyFile, pin(cert)) {
		d := &endpoint{hostileRow: row, target: h.target()}
		if row.inbound == nil { // Core makes its keys
			d.protocol = h.protocol("--security", "reality", "--sni", "site.test", "--dest", site)
		} else {
			port, err := FreePort()
			must(t, err)
			row.inbound["listen"], row.inbound["port"] = "127.0.0.1", port
			d.protocol, err = h.core.AddInbound(h.ctx, "node", row.inbound)
			must(t, err)
		}
		h.endpoints = append(h.endpoints, d)
	}
	h.alice, h.mallory = h.subscriber("alice"), h.subscriber("mallory")
	h.world.start()
	hold := newHoldTarget(t)
	for _, d := range h.endpoints {
		d.client = h.client(d.outbound(h.alice, d.protocol.Port, d.protocol.Port))
		h.record(d, hold)
	}
	return h
}

// serveAll starts the real clients, which run until stop is closed.
func (h *hostile) serveAll() {
	for _, d := range h.endpoints {
		h.serving.Go(func() {
			if err := d.serve(&h.pause, h.stop); err != nil {
				h.t.Errorf("%s: the real client, after %d exchanges: %v", d.name, d.exchanges.Load(), err)
			}
		})
	}
	h.t.Cleanup(h.serving.Wait)
	h.t.Cleanup(func() {
		select {
		case <-h.stop:
		default:
			close(h.stop)
		}
	})
}

// serve exchanges over one connection that stays open and over new ones in turn.
func (d *endpoint) serve(pause *sync.RWMutex, stop <-chan struct{}) error {
	staying, err := d.client.Dial(d.target.Addr())
	if err != nil {
		return err
	}
	defer staying.Close()
	pace := time.NewTicker(50 * time.Millisecond) // without a pace the real clients would overload the node
	defer pace.Stop()
	for {
		pause.RLock()
		err := d.exchangeTwice(staying)
		pause.RUnlock()
		if err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-pace.C:
		}
	}
}

func (d *endpoint) exchangeTwice(staying net.Conn) error {
	if err := exchangeSoon(staying); err != nil {
		return fmt.Errorf("connection that stays: %w", err)
	}
	if d.exchanges.Add(1)%seldom > 1 && d.lingers {
		return nil
	}
	fresh, err := d.client.Dial(d.target.Addr())
	if err != nil {
		return err
	}
	defer fresh.Close()
	if err := exchangeSoon(fresh); err != nil {
		return fmt.Errorf("new connection: %w", err)
	}
	return nil
}

func exchangeSoon(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(hostilePatience)); err != nil {
		return err
	}
	// The first payload is small: see TestProtocolsAndTransports.
	return errors.Join(Exchange(conn, 0, 1), Exchange(conn, 5_003, 20_011))
}

// served waits until every real client has made n more exchanges.
func (h *hostile) served(n int64) error {
	want := make([]int64, len(h.endpoints))
	for i, d := range h.endpoints {
		want[i] = d.exchanges.Load() + n
	}
	return Within(h.ctx, 2*hostilePatience, func() error {
		for i, d := range h.endpoints {
			if h.t.Failed() {
				return nil
			}
			if have := d.exchanges.Load(); have < want[i] {
				return fmt.Errorf("%s: %d exchanges, waiting for %d", d.name, have, want[i])
			}
		}
		return nil
	})
}

// workerStatus is the part of the status about the worker's load.
type workerStatus struct {
	Engines struct {
		Xray struct {
			PID        int   `json:"pid"`
			Restarts   int   `json:"restarts"`
			Goroutines int   `json:"goroutines"`
			Streams    int64 `json:"streams"`
		} `json:"xray"`
	} `json:"engines"`
}

func (h *hostile) ask() (s workerStatus, err error) {
	return s, errors.Join(err, outputJSON(h.ctx, &s, h.agent.path, "status", "--runtime-dir", h.agent.file("run")))
}

func (h *hostile) status(t *testing.T) workerStatus {
	t.Helper()
	s, err := h.ask()
	must(t, err)
	return s
}

// rest waits until every client is served, stops the clients, and stores the worker's status.
func (h *hostile) rest(t *testing.T) {
	t.Helper()
	must(t, h.served(3)) // the worker has then allocated what a connection needs once
	h.pause.Lock()
	defer h.pause.Unlock()
	must(t, Within(h.ctx, hostilePatience, func() (err error) {
		h.start, err = h.ask()
		if streams := h.start.Engines.Xray.Streams; err == nil && streams >= int64(2*len(h.endpoints)) {
			err = fmt.Errorf("%d streams, want the %d that stay", streams, len(h.endpoints))
		}
		return err
	}))
	h.startLog = len(h.agent.Log())
}

// settled stops the real clients, waits until the worker is the same process with as many
// goroutines as before, and returns its memory in megabytes.
func (h *hostile) settled(t *testing.T) (megabytes float64) {
	t.Helper()
	h.pause.Lock()
	defer h.pause.Unlock()
	start, now := h.start.Engines.Xray, h.start.Engines.Xray
	err := Within(h.ctx, hostilePatience, func() error {
		s, err := h.ask()
		if err != nil {
			return err
		}
		if now = s.Engines.Xray; now.Goroutines > start.Goroutines+leakSlack {
			return fmt.Errorf("the worker has %d goroutines and %d streams; it had %d and %d", now.Goroutines, now.Streams, start.Goroutines, start.Streams)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if now.PID != start.PID || now.Restarts != start.Restarts {
		t.Errorf("the worker was %d (%d restarts) and is %d (%d restarts)", start.PID, start.Restarts, now.PID, now.Restarts)
	}
	megabytes, err = memory(now.PID, "VmRSS")
	must(t, err)
	t.Logf("the worker has %d goroutines (%d before) and %.0f MB", now.Goroutines, start.Goroutines, megabytes)
	return megabytes
}

// watchMemory measures the worker's memory until the function that it returns is called. The
// function returns the highest value, in megabytes.
func (h *hostile) watchMemory() (most func() float64) {
	stop, result := make(chan struct{}), make(chan float64)
	go func() {
		var peak float64
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			if now, err := memory(h.start.Engines.Xray.PID, "VmRSS"); err == nil {
				peak = max(peak, now)
			}
			select {
			case <-tick.C:
			case <-stop:
				result <- peak
				return
			}
		}
	}()
	return func() float64 { close(stop); return <-result }
}

// attack makes every attack on every endpoint at once, for one round.
func (h *hostile) attack(t *testing.T, seed uint64) (megabytes float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, attackTime)
	defer cancel()
	most := h.watchMemory()
	var attacks sync.WaitGroup
	made := map[string]*atomic.Int64{}
	for i, d := range h.endpoints {
		for j, kind := range attackKinds {
			if !kind.fits(d) {
				continue
			}
			if made[kind.name] == nil {
				made[kind.name] = new(atomic.Int64)
			}
			a := &attacker{ctx: ctx, endpoint: d, rand: rand.New(rand.NewPCG(seed, uint64(i*100+j))), made: made[kind.name]}
			attacks.Go(func() {
				if err := kind.run(a); err != nil && ctx.Err() == nil {
					t.Errorf("%s: %s: the inbound can't be reached: %v", d.name, kind.name, err)
				}
			})
		}
	}
	attacks.Wait()
	must(t, h.served(2))
	if peak := most(); peak > hostileMB {
		t.Errorf("the worker held %.0f MB; the bound is %d", peak, hostileMB)
	} else {
		t.Logf("the worker held %.0f MB at the most", peak)
	}
	for name, n := range made {
		t.Logf("%-24s %6d connections", name, n.Load())
		if n.Load() == 0 {
			t.Errorf("%s: nothing was tried", name)
		}
	}
	return h.settled(t)
}

// wantExact checks that no bytes of the attackers were billed to Alice.
func (h *hostile) wantExact() {
	h.t.Helper()
	h.stopAgent()
	have, err := h.core.Usage(h.ctx)
	must(h.t, err)
	for _, d := range h.endpoints {
		if billed, counted := have[Account{h.alice.UserID, d.protocol.ID}], d.target.Traffic(); billed != counted {
			h.t.Errorf("%s: Core has %+v of Alice's, her server counted %+v", d.name, billed, counted)
		}
	}
}

// raiseFileLimit raises the number of open files and returns it.
func raiseFileLimit(t *testing.T) int {
	t.Helper()
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	limit.Cur = limit.Max
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	return int(min(limit.Cur, 1<<30))
}

// newHoldTarget is a server of Mallory's: it sends one byte over each connection and keeps the
// connection open.
func newHoldTarget(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Write([]byte{1})
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return l.Addr().String()
}

var silent = log.New(io.Discard, "", 0)
