package e2e

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/counters"
)

// The chaos test kills the daemon, the worker and Core at random while clients move bytes, and
// drops answers of Core to requests that took effect. At the end Core's rows have every byte
// that the dispatcher had counted, once, and the dispatcher had counted every byte that came
// through. Half of the clients use Vision and carry TLS, so that the worker splices.
//
// CHAOS_SECONDS is how long the test lasts (make chaos: five minutes). CHAOS_SEED repeats the
// random choices of a run; each run prints its seed.
func TestChaos(t *testing.T) {
	seconds, seed := environment(t, "CHAOS_SECONDS", 20), environment(t, "CHAOS_SEED", time.Now().UnixNano())
	t.Logf("CHAOS_SEED=%d CHAOS_SECONDS=%d", seed, seconds)
	c := newChaos(t, rand.New(rand.NewPCG(uint64(seed), 0)))
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for _, client := range c.clients {
		traffic.Go(func() { c.traffic(client, stop) })
	}
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end) && !t.Failed(); {
		c.trouble()
	}
	close(stop)
	traffic.Wait()
	c.calm()
	c.report()
}

func environment(t *testing.T, name string, def int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

type chaos struct {
	*world
	rand    *rand.Rand
	lossy   *lossyCore
	target  *Target
	secure  *tlsTarget // behind the clients with Vision, whose connections the worker splices
	clients []*Client  // each user's first, and then each user's with Vision
	users   []Subscription
	disk    string         // the state folder where it is a small tmpfs; empty otherwise
	done    map[string]int // how often each kind of trouble was made
	moved   atomic.Int64   // exchanges that succeeded
	broken  atomic.Int64
	// received is how many bytes the clients got, as the tunnel carries them.
	received atomic.Int64
}

func newChaos(t *testing.T, random *rand.Rand) *chaos {
	t.Helper()
	w := newWorld(t)
	c := &chaos{world: w, rand: random, done: map[string]int{}}
	c.lossy = newLossyCore(t, "https://"+w.core.listen)
	var added struct{ Code string }
	must(t, w.core.Do(w.ctx, &added, "node", "code", "node"))
	dir := filepath.Join(w.dir, "chaos")
	c.disk = smallDisk(t, filepath.Join(dir, "state"))
	var err error
	w.agent, err = NewAgent(w.ctx, w.progs, dir, quickConfig, "--core", c.lossy.URL, "--code", added.Code)
	must(t, err)
	site, cert := w.httpsSite()
	w.protocol()
	w.protocol("--security", "reality", "--sni", "site.test", "--dest", site, "--flow", "xtls-rprx-vision")
	for _, name := range []string{"alice", "bob"} {
		c.users = append(c.users, w.subscriber(name))
	}
	w.start()
	c.target, c.secure = w.target(), newTLSTarget(t, cert)
	for i := range 2 {
		for _, user := range c.users {
			c.clients = append(c.clients, w.linkClient(user.Links[i]))
		}
	}
	return c
}

// traffic moves bytes until stop is closed. It opens a new connection after a failure.
func (c *chaos) traffic(client *Client, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if err := c.exchange(client); err != nil {
			c.broken.Add(1)
			time.Sleep(20 * time.Millisecond) // the worker is down: wait a little before the next try
			continue
		}
		c.moved.Add(1)
	}
}

// exchange moves bytes over a new connection. With Vision it moves so many that most are
// spliced.
func (c *chaos) exchange(client *Client) error {
	vision := slices.Index(c.clients, client) >= len(c.users)
	to, up, down := c.target, rand.Int64N(200_000), rand.Int64N(500_000)
	if vision {
		to, down = c.secure.Target, rand.Int64N(20_000_000)
	}
	conn, err := client.Dial(to.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn = countedConn{conn, &c.received}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if vision {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	}
	return Exchange(conn, up, down)
}

// trouble makes one kind of trouble and waits a while.
func (c *chaos) trouble() {
	c.t.Helper()
	switch what := c.rand.IntN(9); what {
	case 0:
		c.note("daemon and worker killed")
		c.agent.Kill()
		must(c.t, c.agent.Start(c.ctx))
	case 7:
		c.note("daemon killed")
		c.agent.Crash()
		must(c.t, c.agent.Start(c.ctx))
	case 8:
		c.note("daemon restarted")
		must(c.t, c.agent.Leave())
		must(c.t, c.agent.Start(c.ctx))
	case 1:
		if s, err := c.agent.Status(c.ctx); err == nil && s.Engines.Xray.PID > 0 {
			c.note("worker killed")
			_ = syscall.Kill(s.Engines.Xray.PID, syscall.SIGKILL)
		}
	case 2:
		c.note("Core killed")
		c.core.Kill()
		time.Sleep(time.Duration(c.rand.IntN(500)) * time.Millisecond)
		must(c.t, c.core.Start(c.ctx))
	case 3:
		c.note("answers lost")
		c.lossy.lose.Store(true)
		time.Sleep(time.Duration(c.rand.IntN(1500)) * time.Millisecond)
		c.lossy.lose.Store(false)
	case 4:
		c.note("network stalled")
		c.lossy.stall.Store(true)
		time.Sleep(time.Duration(c.rand.IntN(1500)) * time.Millisecond)
		c.lossy.stall.Store(false)
	case 5:
		c.note("daemon stopped")
		must(c.t, c.agent.Stop())
		must(c.t, c.agent.Start(c.ctx))
	case 6:
		c.fillDisk()
	}
	time.Sleep(time.Duration(c.rand.IntN(700)) * time.Millisecond)
}

// smallDisk mounts a tmpfs of a few megabytes. It returns "" where the test may not mount.
func smallDisk(t *testing.T, dir string) string {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		t.Logf("THE DISK IS NOT FILLED in this run: a tmpfs can't be mounted (%v); run as root", err)
		return ""
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fillDisk fills the small disk for a while.
func (c *chaos) fillDisk() {
	if c.disk == "" {
		return
	}
	c.note("disk filled")
	path := filepath.Join(c.disk, "ballast")
	ballast, err := os.Create(path)
	must(c.t, err)
	block := make([]byte, 4096)
	for err == nil {
		_, err = ballast.Write(block)
	}
	_ = ballast.Close()
	time.Sleep(time.Duration(c.rand.IntN(1500)) * time.Millisecond)
	must(c.t, os.Remove(path))
}

func (c *chaos) note(what string) { c.done[what]++ }

// calm waits until the node works again, and stops the daemon, which delivers its rows.
func (c *chaos) calm() {
	c.t.Helper()
	must(c.t, Eventually(c.ctx, func() error { return c.exchange(c.clients[0]) }))
	must(c.t, c.agent.Stop())
	// The next daemon delivers what this one could not deliver in its last seconds.
	must(c.t, c.agent.Start(c.ctx))
	must(c.t, Eventually(c.ctx, func() error {
		var state struct {
			Waiting struct{ Batches map[string]int }
		}
		if err := outputJSON(c.ctx, &state, c.agent.path, "outbox", "list", "--runtime-dir", c.agent.file("run")); err != nil {
			return err
		}
		for kind, n := range state.Waiting.Batches {
			if n > 0 {
				return fmt.Errorf("%d batches of %s wait", n, kind)
			}
		}
		return nil
	}))
	must(c.t, c.agent.Stop())
}

// report compares what was counted (in the counters file of daemon and worker) with what Core
// has, and prints a table.
func (c *chaos) report() {
	c.t.Helper()
	counted := c.counted()
	billed := c.billed()
	plain, secure := c.target.Traffic(), c.secure.Wire()
	served := Traffic{plain.Up + secure.Up, plain.Down + secure.Down}
	c.t.Logf("done: %v; %d exchanges, %d broken", c.done, c.moved.Load(), c.broken.Load())
	c.t.Logf("%-34s %14s %14s", "", "up", "down")
	c.t.Logf("%-34s %14d %14d", "counted by the dispatcher", counted.Up, counted.Down)
	c.t.Logf("%-34s %14d %14d", "in Core's rows", billed.Up, billed.Down)
	c.t.Logf("%-34s %14d %14d", "lost", max(counted.Up-billed.Up, 0), max(counted.Down-billed.Down, 0))
	c.t.Logf("%-34s %14d %14d", "doubled", max(billed.Up-counted.Up, 0), max(billed.Down-counted.Down, 0))
	c.t.Logf("%-34s %14d %14d", "at the servers, kills included", served.Up, served.Down)
	if counted != billed {
		c.t.Errorf("Core has %+v, the dispatcher counted %+v", billed, counted)
	}
	c.t.Logf("%-34s %14s %14d", "at the clients", "", c.received.Load())
	// A worker that is killed has counted what it passed on, and no more than it got.
	if counted.Up < served.Up || counted.Down < c.received.Load() {
		c.t.Errorf("bytes came through that are not counted: %+v are counted; the servers got %d, the clients %d", counted, served.Up, c.received.Load())
	}
	if counted.Down > served.Down {
		c.t.Errorf("the dispatcher counted %d bytes down, the servers sent %d", counted.Down, served.Down)
	}
	if c.moved.Load() == 0 {
		c.t.Error("no exchange ended well: nothing was tested")
	}
	c.wantAlternating()
}

// counted returns the sum of the clients' counters in the counters file.
func (c *chaos) counted() Traffic {
	c.t.Helper()
	file, err := counters.Open(c.agent.file("run/counters"))
	must(c.t, err)
	defer file.Close()
	clients, outbound := c.split(file)
	node, err := c.core.Node(c.ctx, "node")
	must(c.t, err)
	for _, out := range node.Outbounds {
		if billed := (Traffic{out.TrafficBytesUp, out.TrafficBytesDown}); out.Tag == "direct" && billed != outbound {
			c.t.Errorf("Core has %+v for the outbound, the dispatcher counted %+v", billed, outbound)
		}
	}
	return clients
}

// split returns the sum of the clients' slots, and the outbound's slot, which is the one that
// has as much as all clients together.
func (c *chaos) split(file *counters.File) (clients, outbound Traffic) {
	for number := uint32(0); ; number++ {
		slot, err := file.Slot(number)
		if err != nil { // after the last slot
			break
		}
		up, down := slot.Up.Load(), slot.Down.Load()
		clients = Traffic{clients.Up + int64(up), clients.Down + int64(down)}
		if int64(down) > outbound.Down {
			outbound = Traffic{int64(up), int64(down)}
		}
	}
	return Traffic{clients.Up - outbound.Up, clients.Down - outbound.Down}, outbound
}

func (c *chaos) billed() Traffic {
	c.t.Helper()
	usage, err := c.core.Usage(c.ctx)
	must(c.t, err)
	var sum Traffic
	for _, traffic := range usage {
		sum = Traffic{sum.Up + traffic.Up, sum.Down + traffic.Down}
	}
	return sum
}

// wantAlternating checks that each user goes offline between two onlines, and is offline at
// the end.
func (c *chaos) wantAlternating() {
	c.t.Helper()
	var events []struct {
		UserID    int64
		EventType string
	}
	must(c.t, c.core.Do(c.ctx, &events, "events", "--limit", "100000"))
	online := map[int64]int{}
	for _, e := range events {
		if e.EventType == "online" {
			online[e.UserID]++
		} else {
			online[e.UserID]--
		}
		// Each user has two inbounds, so two can be online at a time.
		if n := online[e.UserID]; n < 0 || n > 2 {
			c.t.Errorf("user %d is online %d times", e.UserID, n)
		}
	}
	for user, n := range online {
		if n != 0 {
			c.t.Errorf("user %d ends %d times online", user, n)
		}
	}
}

// lossyCore is a proxy before Core. It drops answers to requests that took effect, and stalls.
type lossyCore struct {
	*httptest.Server
	lose, stall atomic.Bool
}

func newLossyCore(t *testing.T, core string) *lossyCore {
	t.Helper()
	to, err := url.Parse(core)
	must(t, err)
	l := &lossyCore{}
	forward := &httputil.ReverseProxy{
		Transport:    &http.Transport{TLSClientConfig: trustAll()},
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for l.stall.Load() {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
		if l.lose.Load() && r.Method == http.MethodPost {
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}
