package xray_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	xnet "github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/infra/conf/serial"
	"golang.org/x/sys/unix"

	"nodeagent/internal/counters"
	"nodeagent/internal/e2e"
	"nodeagent/internal/refusal"
	"nodeagent/internal/supervise"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
	"nodeagent/xray/worker"
	"nodeagent/xray/worker/life"
	"nodeagent/xray/worker/outbound/wireguard"
	"nodeagent/xray/worker/transport/listen"
)

// The tests run the engine of package xray with real workers: this test's own
// program, started again with workerEnv set.
const workerEnv = "NODE_AGENT_TEST_WORKER"

// raceEnv is how the files begin into which workers write the races that they find.
const raceEnv = "NODE_AGENT_TEST_RACES"

// openRaceLog makes the standard output the race detector's: a worker can open no file later.
func openRaceLog() error {
	path := os.Getenv(raceEnv)
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(fmt.Sprintf("%s.%d", path, os.Getpid()), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return unix.Dup3(int(file.Fd()), 1, 0)
}

// probeFile is a file in the assets' folder with the path of a file that a worker tries to open at
// SIGWINCH. The worker's output says what came of it.
const probeFile = "probe"

func probeOnSignal() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGWINCH)
	for range asked {
		path, err := os.ReadFile(filepath.Join(os.Getenv("XRAY_LOCATION_ASSET"), probeFile))
		if err == nil {
			_, err = os.ReadFile(string(path))
		}
		fmt.Fprintf(os.Stderr, "probe of %s: %v\n", path, err)
	}
}

// noReusePort is a file in the assets' folder. Workers that start while it is there can't set
// SO_REUSEPORT.
const noReusePort = "no-reuseport"

// defaultTimes is an environment variable that makes tests of vanished clients wait as long as the
// default times say: some two minutes.
const defaultTimes = "VANISHED_AT_DEFAULTS"

// noCapset is a file in the assets' folder. Workers that start while it is there can't give up
// capabilities.
const noCapset = "no-capset"

// shortIdle is a file in the assets' folder. Workers that start while it is there close
// connections of HTTP carriers after a second without a request.
const shortIdle = "short-idle"

// shortVisit is a file in the assets' folder. Workers that start while it is there end the visit of
// a stranger to a borrowed site after two seconds without a word of the site, or seven of both.
const shortVisit = "short-visit"

func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) != "" {
		os.Exit(runDaemon())
	}
	if os.Getenv(workerEnv) == "" {
		os.Exit(m.Run())
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("XRAY_LOCATION_ASSET"), noReusePort)); err == nil {
		if err := refusal.Refuse(refusal.ReusePort()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("XRAY_LOCATION_ASSET"), noCapset)); err == nil {
		if err := refusal.Refuse(refusal.Call{Number: unix.SYS_CAPSET, Errno: unix.EPERM}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("XRAY_LOCATION_ASSET"), shortIdle)); err == nil {
		listen.Idle = time.Second
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("XRAY_LOCATION_ASSET"), shortVisit)); err == nil {
		listen.HalfClosedVisit, listen.SilentVisit = 2*time.Second, 7*time.Second
	}
	if os.Getenv(defaultTimes) == "" {
		life.LookEvery = time.Second
	}
	if err := openRaceLog(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go probeOnSignal()
	panics := make(chan os.Signal, 1)
	signal.Notify(panics, syscall.SIGUSR1)
	go func() { // as a goroutine of xray-core's does
		<-panics
		panic("a test wants it, and quotes " + aliceID)
	}()
	listener, secret, err := ipc.Inherited()
	if err == nil {
		var daemons worker.Listener = listener
		if os.Getenv(failEnv) != "" {
			daemons = failingListener{listener, os.Getenv(failEnv), deafOnSignal()}
		}
		err = worker.Run(context.Background(), daemons, secret, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, endedByItself)
	os.Exit(0)
}

// endedByItself is what a worker says that nobody killed.
const endedByItself = "the worker ended by itself"

// deafOnSignal returns what keeps a worker from answering once it got a signal: at
// SIGUSR2 it spins, and at SIGHUP a crowd has all processors.
func deafOnSignal() (hear func()) {
	spin, crowd := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(spin, syscall.SIGUSR2)
	signal.Notify(crowd, syscall.SIGHUP)
	work := func() {
		for len(spin)+len(crowd) > 0 {
		}
	}
	return func() {
		if len(crowd) > 0 {
			for range 2 * runtime.GOMAXPROCS(0) {
				go work()
			}
		}
		work()
	}
}

const (
	aliceID  = "11111111-1111-4111-8111-111111111111"
	bobID    = "22222222-2222-4222-8222-222222222222"
	patience = 20 * time.Second
)

// rig is an engine with an echo server behind its workers.
type rig struct {
	t        *testing.T
	engine   *xray.Engine
	config   xray.Config
	tell     func(ipc.Presence)
	end      func(cause error) // ends the engine
	adopted  xray.Adopted
	counters *counters.File
	port     int
	echo     net.Listener
	assets   string // folder of the geo files
	log      journal

	mu       sync.Mutex
	closed   []uint32
	failed   []xray.Failure
	presence []ipc.Presence
}

func newRig(t *testing.T) *rig { return newRigThatDrains(t, time.Minute) }

// newRigThatDrains has old workers that may drain for so long.
func newRigThatDrains(t *testing.T, drainTimeout time.Duration) *rig {
	t.Helper()
	return newRigWith(t, xray.Config{DrainTimeout: drainTimeout}, func(ipc.Presence) {})
}

// newRigThatTells tells who comes and goes.
func newRigThatTells(t *testing.T, presence func(ipc.Presence)) *rig {
	t.Helper()
	return newRigWith(t, xray.Config{DrainTimeout: time.Minute}, presence)
}

// newRigWith adds to the configuration what every rig has.
func newRigWith(t *testing.T, config xray.Config, presence func(ipc.Presence)) *rig {
	t.Helper()
	r := &rig{t: t, port: freePort(t), assets: t.TempDir()}
	path := filepath.Join(t.TempDir(), "counters")
	file, err := counters.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	r.counters = file
	races := filepath.Join(raceFolder(t), "race")
	t.Cleanup(func() { noRaces(t, races) }) // once the engine has ended
	config.Worker = supervise.Spec{Path: os.Args[0], Env: []string{workerEnv + "=1", "XRAY_LOCATION_ASSET=" + r.assets, failEnv + "=" + filepath.Join(r.assets, "fail"), "GORACE=atexit_sleep_ms=0 log_path=stdout", raceEnv + "=" + races}}
	key := sha256.Sum256([]byte(path)) // workers of one key pass datagrams to each other
	config.CountersPath, config.ResetKey, config.Secret = path, key[:], []byte("the secret of the tests")
	config.ClientNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	r.config, r.tell = config, presence
	t.Cleanup(func() { // also of an engine that was left
		if _, err := xray.EndWorkers(filepath.Dir(path), patience); err != nil {
			t.Error(err)
		}
	})
	r.run()
	t.Cleanup(func() { r.end(nil) })
	if r.echo, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.echo.Close() })
	go func() {
		for {
			conn, err := r.echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	return r
}

// run makes an engine, which adopts what runs, and lets it run.
func (r *rig) run() {
	r.t.Helper()
	var err error
	r.engine, err = xray.New(r.config, xray.Deps{
		Log: r.log.logger(), Presence: func(p ipc.Presence) { r.mu.Lock(); r.presence = append(r.presence, p); r.mu.Unlock(); r.tell(p) },
		SlotsClosed: func(slots []uint32) { r.mu.Lock(); r.closed = append(r.closed, slots...); r.mu.Unlock() },
		Failed:      func(f xray.Failure) { r.mu.Lock(); r.failed = append(r.failed, f); r.mu.Unlock() },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if r.adopted, err = r.engine.Adopt(context.Background(), r.counters.Epoch()); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() { _ = r.engine.Run(ctx); close(done) }()
	r.end = func(cause error) { cancel(cause); <-done }
}

// knownRaces are of libraries alone: in a race of these nothing is done with what may
// be torn.
var knownRaces = []string{
	"tls.setupOcspTicker",                       // xray-core writes a renewed certificate while handshakes read
	"at github.com/sagernet/sing/common/udpnat", // a datagram's source is written while an answer reads it, and ignored
	// A datagram comes while its association ends: the write fails then.
	"at github.com/xtls/xray-core/transport/internet/udp.(*connEntry).terminate",
	"at github.com/xtls/reality.(*CCSDetectConn)", // the error of a probe of the borrowed site, which is over then
}

var accesses = regexp.MustCompile(`(?m)( at) 0x\S+ by .*\n\s+(\S+)`)

// noRaces fails the test where the race detector told of something in a worker, whose
// reports go to files that begin so.
func noRaces(t *testing.T, prefix string) {
	t.Helper()
	files, err := filepath.Glob(prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for report := range strings.SplitSeq(string(text), "==================") {
			places := accesses.ReplaceAllString(report, "$1 $2")
			known := slices.ContainsFunc(knownRaces, func(place string) bool { return strings.Contains(places, place) })
			if strings.Contains(report, "DATA RACE") && !known {
				t.Errorf("in a worker: %s", report)
			}
		}
	}
}

// raceFolder is not t.TempDir, which has the test's name in it: in GORACE a comma or a
// space begins another option.
func raceFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "race")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := e2e.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// parseReaching reads a services.xray whose clients may reach the echo on loopback.
func parseReaching(service json.RawMessage, inClientMap func(string) bool) (state.State, error) {
	reaching, err := e2e.ReachLoopback(service)
	if err != nil {
		return state.State{}, err
	}
	return parse.Service(reaching, inClientMap)
}

// state has one VLESS inbound with the clients, and what more holds of Core's
// JSON. Slots are given in order, the outbound's first.
func (r *rig) state(more string, ids ...string) state.State {
	r.t.Helper()
	var clients []string
	for _, id := range ids {
		clients = append(clients, fmt.Sprintf(`{"id":%q,"email":%q}`, id, id))
	}
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless",
		"settings":{"decryption":"none","clients":[%s]}}]%s}`, r.port, strings.Join(clients, ","), more)), func(string) bool { return true })
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range s.Inbounds["in-1"].Clients {
		c := s.Inbounds["in-1"].Clients[i]
		c.Slot = map[string]uint32{aliceID: 1, bobID: 2, carolID: 3, daveID: 4}[c.Key]
	}
	return s
}

func (r *rig) apply(s state.State) {
	r.t.Helper()
	if err := r.engine.Apply(r.t.Context(), s); err != nil {
		r.t.Fatal(err)
	}
}

// dial opens a connection through the inbound as a client, and uses it once.
func (r *rig) dial(id string) net.Conn {
	r.t.Helper()
	conn, err := r.tryDial(id)
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

func (r *rig) tryDial(id string) (net.Conn, error) { return r.tryDialPort(id, r.port) }

func (r *rig) tryDialPort(id string, port int) (net.Conn, error) {
	conn, err := r.dialOutbound(vlessOutbound(id, port))
	if err != nil {
		return nil, err
	}
	return conn, use(conn)
}

// vlessOutbound is the outbound of a client for the inbound of VLESS on a port.
func vlessOutbound(id string, port int) string {
	return fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[
		{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]}}`, port, id)
}

// dialOutbound opens a connection to the echo through an outbound of a client.
func (r *rig) dialOutbound(outbound string) (net.Conn, error) {
	return r.dialOutboundTo(outbound, r.toEcho())
}

// toEcho is the echo as a destination of a client.
func (r *rig) toEcho() xnet.Destination {
	address := r.echo.Addr().(*net.TCPAddr)
	return xnet.TCPDestination(xnet.IPAddress(address.IP), xnet.Port(address.Port))
}

func (r *rig) dialOutboundTo(client string, to xnet.Destination) (net.Conn, error) {
	instance, err := r.stockClient(client)
	if err != nil {
		return nil, err
	}
	return r.dialThrough(instance, to)
}

// stockClient starts a stock client with an outbound. core.New writes variables of xray-core that a dial
// reads (transport/internet/dialer.go:284), so no other goroutine may dial or make a client meanwhile.
func (r *rig) stockClient(client string) (*core.Instance, error) {
	config, err := serial.LoadJSONConfig(strings.NewReader(`{"outbounds":[` + client + `]}`))
	if err != nil {
		return nil, err
	}
	instance, err := core.New(config)
	if err != nil {
		return nil, err
	}
	if err := wireguard.Guard(instance.GetFeature(outbound.ManagerType()).(outbound.Manager).GetDefaultHandler()); err != nil {
		return nil, err
	}
	if err := instance.Start(); err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = instance.Close() })
	return instance, nil
}

// dialThrough opens a connection through a stock client.
func (r *rig) dialThrough(instance *core.Instance, to xnet.Destination) (net.Conn, error) {
	conn, err := core.Dial(context.Background(), instance, to)
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn, nil
}

// use sends something there and back; it gives up after a while.
func use(conn net.Conn) error {
	word := []byte("there and back")
	result := make(chan error, 1)
	go func() {
		if _, err := conn.Write(word); err != nil {
			result <- err
			return
		}
		back := make([]byte, len(word))
		if _, err := io.ReadFull(conn, back); err != nil {
			result <- err
		} else if !bytes.Equal(back, word) {
			result <- fmt.Errorf("%q came back", back)
		}
		close(result)
	}()
	select {
	case err := <-result:
		return err
	case <-time.After(patience):
		return fmt.Errorf("nothing came back within %s", patience)
	}
}

func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	r.within(patience, what, is)
}

// promised is how long a test waits for what we promise within a second or two: a busy
// machine may take a few times as long.
const promised = 5 * time.Second

func (r *rig) within(limit time.Duration, what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(limit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within %s; status %+v", what, limit, r.engine.Status())
		}
	}
}

// replaced waits for another worker than the one of a process, so long at the most.
func (r *rig) replaced(first int, limit time.Duration) {
	r.t.Helper()
	r.within(limit, "another worker runs", func() bool { s := r.engine.Status(); return s.PID != first && s.State == "running" })
}

func (r *rig) slotClosed(slot uint32) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Contains(r.closed, slot)
	}
}

// cut returns once the connection ends.
func (r *rig) cut(conn net.Conn) {
	r.t.Helper()
	ended := make(chan struct{})
	go func() { _, _ = conn.Read(make([]byte, 1)); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		r.t.Fatal("the connection of a removed client lives on")
	}
}

func (r *rig) address() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// panicWorker makes a worker panic.
func panicWorker(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
}
