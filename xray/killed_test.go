package xray_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/supervise"
	"nodeagent/internal/testfiles"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// daemonEnv makes this test's program a daemon: an engine that applies the states that it reads
// from standard input, and says so. The value is the configuration of the engine.
const daemonEnv = "NODE_AGENT_TEST_DAEMON"

// killsDaemon begins the text of the file of failEnv where the daemon is to be killed, before
// (a worker never gets the request) or after a request: "boot", "drain", an operation by its number, or
// "adopting" with the number of any request but a ping. They are counted in each worker since the daemon
// connected.
const killsDaemon = "kill the daemon "

// killNow is what a worker says to have its daemon killed: it is confined and may signal nobody.
const killNow = "the daemon kills itself now"

// killDaemonAt kills the daemon if its time has come. passes tells whether the worker gets the
// request all the same.
func killDaemonAt(point string, request ipc.Request, requests, operations *int, daemon *ipc.FrameConn) (killed, passes bool) {
	words := strings.Fields(point) // before|after, what
	killed = words[1] == "boot" && request.Boot != nil || words[1] == "drain" && request.Drain != nil
	if request.Operation != nil {
		*operations++
		killed = words[1] == strconv.Itoa(*operations)
	}
	if request.ID != 0 && !request.Ping { // the frames of the handshake have no id
		*requests++
		killed = killed || words[1] == "adopting" && words[2] == strconv.Itoa(*requests)
	}
	if killed {
		_ = daemon.Write(ipc.Message{Notice: &ipc.Notice{Message: killNow}})
		for {
			if _, err := daemon.ReadFrame(); err != nil { // it is gone
				break
			}
		}
	}
	return killed, words[0] == "after"
}

// obedient is the log of a daemon that kills itself where a worker says so.
type obedient struct{}

func (obedient) Write(line []byte) (int, error) {
	if strings.Contains(string(line), killNow) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return len(line), nil
}

// daemonConfig is what a daemon of the tests is told.
type daemonConfig struct {
	Counters, Assets, Races string
	Port                    int
	IPv6Prefix              int
	// Epoch is of counters: the daemon adopts the workers that count into them, and restores the first
	// state that it reads. It is empty for a daemon that adopts none.
	Epoch string
}

func (c daemonConfig) engine() xray.Config {
	return xray.Config{
		Worker:       supervise.Spec{Path: os.Args[0], Env: []string{workerEnv + "=1", "XRAY_LOCATION_ASSET=" + c.Assets, failEnv + "=" + filepath.Join(c.Assets, "fail"), "GORACE=atexit_sleep_ms=0 log_path=" + c.Races}},
		CountersPath: c.Counters, DrainTimeout: time.Minute, OrphanTimeout: time.Hour, Secret: []byte("the secret of the tests"), IPv6Prefix: c.IPv6Prefix,
		ClientNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
}

// runDaemon is the daemon.
func runDaemon() int {
	var c daemonConfig
	if err := json.Unmarshal([]byte(os.Getenv(daemonEnv)), &c); err != nil {
		panic(err)
	}
	state.UsersTogether = 1 // so that an inbound comes in several steps
	engine, err := xray.New(c.engine(), xray.Deps{
		Log: slog.New(slog.NewTextHandler(obedient{}, nil)), Presence: func(ipc.Presence) {}, SlotsClosed: func([]uint32) {}, Failed: func(xray.Failure) {},
	})
	if err != nil {
		panic(err)
	}
	reach := engine.Apply
	if c.Epoch != "" {
		if _, err := engine.Adopt(context.Background(), c.Epoch); err != nil {
			panic(err)
		}
		reach = engine.Restore
	}
	go func() { _ = engine.Run(context.Background()) }()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		s, err := killedState(lines.Bytes())
		if err == nil {
			err = reach(context.Background(), s)
		}
		reach = engine.Apply
		fmt.Println(err)
	}
	return 0
}

// killedState reads a services.xray. The slots follow from the clients.
func killedState(service []byte) (state.State, error) {
	s, err := parseReaching(service, func(string) bool { return true })
	for tag, in := range s.Inbounds {
		for i := range in.Clients {
			in.Clients[i].Slot = map[string]uint32{aliceID: 1, bobID: 2, carolID: 3, daveID: 4}[in.Clients[i].Key] + map[string]uint32{"in-2": 10}[tag]
		}
	}
	return s, err
}

func killedService(port int, more string, second int, ids ...string) string {
	var clients []string
	for _, id := range ids {
		clients = append(clients, fmt.Sprintf(`{"id":%q,"email":%q}`, id, id))
	}
	inbound := func(tag string, port int) string {
		return fmt.Sprintf(`{"tag":%q,"listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[%s]}}`, tag, port, strings.Join(clients, ","))
	}
	inbounds := inbound("in-1", port)
	if second != 0 {
		inbounds += "," + inbound("in-2", second)
	}
	return fmt.Sprintf(`{"inbounds":[%s]%s}`, inbounds, more)
}

// The daemon is killed between any two steps of a change and of a takeover. The next one restores
// what ran before, and then makes the same change: nobody who stays in is cut, and nobody who is out
// is served.
func TestDaemonKilledBetweenAnyTwoSteps(t *testing.T) {
	const routed = `,"outbounds":[{"tag":"direct","protocol":"freedom"},{"tag":"block","protocol":"blackhole"}],"routing":{"rules":[{"ip":["192.0.2.1"],"outboundTag":"block"}]}`
	for _, c := range []struct{ name, more string }{{"change", routed}, {"takeover", routed + observed}} {
		points := []string{"boot", "drain"}
		if c.name == "change" {
			points = nil
		}
		for i := range 8 {
			points = append(points, strconv.Itoa(i+1))
		}
		for _, point := range points {
			for _, when := range []string{"before ", "after "} {
				t.Run(c.name+" "+when+point, func(t *testing.T) { killedAt(t, c.more, when+point) })
			}
		}
	}
}

// killableDaemon is a daemon in a process of its own.
type killableDaemon struct {
	*exec.Cmd
	in   io.Writer
	said *bufio.Reader
}

func startDaemon(t *testing.T, config daemonConfig) *killableDaemon {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	d := &killableDaemon{Cmd: exec.Command(os.Args[0])}
	d.Env = append(os.Environ(), daemonEnv+"="+string(text), workerEnv+"=")
	d.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.Stderr = os.Stderr
	in, err1 := d.StdinPipe()
	out, err2 := d.StdoutPipe()
	if err := errors.Join(err1, err2, d.Start()); err != nil {
		t.Fatal(err)
	}
	d.in, d.said = in, bufio.NewReader(out)
	return d
}

// ask brings the daemon to a state, and returns what it says.
func (d *killableDaemon) ask(service string) (string, error) {
	if _, err := io.WriteString(d.in, service+"\n"); err != nil {
		return "", err
	}
	return d.said.ReadString('\n')
}

// reachesUntil lets the daemon reach a state, until it is killed at a point. killed is false where it has
// done everything before: it is killed then.
func (d *killableDaemon) reachesUntil(t *testing.T, assets, service, point string) (killed bool) {
	t.Helper()
	testfiles.Replace(t, filepath.Join(assets, "fail"), []byte(killsDaemon+point))
	answer, err := d.ask(service)
	testfiles.Replace(t, filepath.Join(assets, "fail"), nil)
	if err == nil && answer != "<nil>\n" {
		t.Fatalf("the daemon says %q", answer)
	}
	_ = d.Process.Kill()
	_ = d.Wait()
	return err != nil
}

func killedAt(t *testing.T, more, point string) {
	r := newRig(t)
	r.end(nil)
	second := freePort(t)
	before, after := killedService(r.port, "", 0, aliceID, bobID), killedService(r.port, more, second, bobID, carolID)
	config := daemonConfig{Counters: r.config.CountersPath, Assets: r.assets, Races: filepath.Join(raceFolder(t), "race"), Port: r.port}
	daemon := startDaemon(t, config)
	if answer, err := daemon.ask(before); err != nil || answer != "<nil>\n" {
		t.Fatalf("the daemon says %q (%v)", answer, err)
	}
	bob := r.dial(bobID)
	daemon.reachesUntil(t, r.assets, after, point)

	r.config = config.engine()
	r.run()
	if r.adopted.Workers == 0 {
		t.Fatal("no worker was adopted")
	}
	if err := use(bob); err != nil {
		t.Fatalf("bob was cut: %v", err)
	}
	to, err := killedState([]byte(before))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Restore(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	wants := func(port int, served map[string]bool) {
		t.Helper()
		for id, want := range served {
			conn, err := r.tryDialPort(id, port)
			if (err == nil) != want {
				t.Errorf("client %s on port %d: %v, want it served: %v", id[:4], port, err, want)
			}
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
	wants(r.port, map[string]bool{aliceID: true, bobID: true, carolID: false})
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", second)); err == nil {
		_ = conn.Close()
		t.Error("the second inbound listens, which the restored state does not have")
	}
	if to, err = killedState([]byte(after)); err != nil {
		t.Fatal(err)
	}
	r.apply(to)
	wants(r.port, map[string]bool{aliceID: false, bobID: true, carolID: true})
	wants(second, map[string]bool{aliceID: false, bobID: true, carolID: true})
	if err := use(bob); err != nil {
		t.Errorf("bob was cut after all: %v", err)
	}
	r.eventually("alice's slot is closed", r.slotClosed(1))
}

// A daemon is killed between any two steps of an adoption: of one that brings the worker to another state,
// and of one that lets another worker take over, for other settings. The next daemon does it in full: nobody
// who stays in is cut, nobody who is out is served, and bytes are counted once.
func TestDaemonKilledWhileItAdopts(t *testing.T) {
	const routed = `,"outbounds":[{"tag":"direct","protocol":"freedom"},{"tag":"block","protocol":"blackhole"}],"routing":{"rules":[{"ip":["192.0.2.1"],"outboundTag":"block"}]}`
	for _, c := range []struct {
		name, more string
		prefix     int
		fixed      []string // points, before those by number
	}{{"change", routed, 0, nil}, {"takeover", "", 56, []string{"boot", "drain", "1", "2", "3"}}} {
		for _, when := range []string{"before ", "after "} {
			for _, point := range c.fixed {
				t.Run(c.name+" "+when+point, func(t *testing.T) {
					if !killedInAdoption(t, c.more, c.prefix, when+point) {
						t.Error("the daemon was not killed: there is no such step")
					}
				})
			}
			steps := 0
			for killed := true; killed && !t.Failed(); {
				point := fmt.Sprintf("adopting %d", steps+1)
				t.Run(c.name+" "+when+point, func(t *testing.T) { killed = killedInAdoption(t, c.more, c.prefix, when+point) })
				if killed {
					steps++
				}
			}
			if t.Logf("%s, %s%d steps", c.name, when, steps); steps < 3 {
				t.Errorf("an adoption has %d steps, want more", steps)
			}
		}
	}
}

func killedInAdoption(t *testing.T, more string, prefix int, point string) (killed bool) {
	r := newRig(t)
	r.end(nil)
	second := 0
	if prefix == 0 {
		second = freePort(t)
	}
	before, after := killedService(r.port, "", 0, aliceID, bobID), killedService(r.port, more, second, bobID, carolID)
	config := daemonConfig{Counters: r.config.CountersPath, Assets: r.assets, Races: filepath.Join(raceFolder(t), "race"), Port: r.port, Epoch: r.counters.Epoch()}
	r.config = config.engine()
	r.run()
	to, err := killedState([]byte(before))
	if err != nil {
		t.Fatal(err)
	}
	r.apply(to)
	bob, uses := r.dial(bobID), uint64(1)
	move := func() {
		t.Helper()
		if err := use(bob); err != nil {
			t.Fatalf("bob was cut: %v", err)
		}
		uses++
	}
	r.end(supervise.ErrLeave)
	config.IPv6Prefix = prefix
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), []byte(killsDaemon+point)) // it adopts before it is asked
	killed = startDaemon(t, config).reachesUntil(t, r.assets, after, point)
	move()

	r.config = config.engine()
	r.run()
	if r.adopted.Workers == 0 {
		t.Fatal("no worker was adopted")
	}
	if to, err = killedState([]byte(after)); err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Restore(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	move()
	for id, want := range map[string]bool{aliceID: false, carolID: true} {
		conn, err := r.tryDialPort(id, r.port)
		if (err == nil) != want {
			t.Errorf("client %s: %v, want it served: %v", id[:4], err, want)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
	const word = uint64(len("there and back"))
	r.eventually("bob's bytes are counted", func() bool {
		up, down := r.counters.Read(2)
		return up == uses*word && down == uses*word
	})
	return killed
}
