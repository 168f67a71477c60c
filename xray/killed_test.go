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
// (a worker never gets the request) or after a request: "boot", "drain", or an operation by its
// number, counted in the worker since the first request with this text.
const killsDaemon = "kill the daemon "

// killNow is what a worker says to have its daemon killed: it is confined and may signal nobody.
const killNow = "the daemon kills itself now"

// killDaemonAt kills the daemon if its time has come. passes tells whether the worker gets the
// request all the same.
func killDaemonAt(point string, request ipc.Request, operations *int, daemon *ipc.FrameConn) (killed, passes bool) {
	words := strings.Fields(point) // before|after, what
	killed = words[1] == "boot" && request.Boot != nil || words[1] == "drain" && request.Drain != nil
	if request.Operation != nil {
		*operations++
		killed = words[1] == strconv.Itoa(*operations)
	}
	if killed {
		fmt.Fprintln(os.Stderr, killNow)
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
}

func (c daemonConfig) engine() xray.Config {
	return xray.Config{
		Worker:       supervise.Spec{Path: os.Args[0], Env: []string{workerEnv + "=1", "XRAY_LOCATION_ASSET=" + c.Assets, failEnv + "=" + filepath.Join(c.Assets, "fail"), "GORACE=atexit_sleep_ms=0 log_path=" + c.Races}},
		CountersPath: c.Counters, DrainTimeout: time.Minute, OrphanTimeout: time.Hour, Secret: []byte("the secret of the tests"),
		ClientNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
}

// runDaemon is the daemon.
func runDaemon() int {
	var c daemonConfig
	if err := json.Unmarshal([]byte(os.Getenv(daemonEnv)), &c); err != nil {
		panic(err)
	}
	engine, err := xray.New(c.engine(), xray.Deps{
		Log: slog.New(slog.NewTextHandler(obedient{}, nil)), Presence: func(ipc.Presence) {}, SlotsClosed: func([]uint32) {}, Failed: func(xray.Failure) {},
	})
	if err != nil {
		panic(err)
	}
	go func() { _ = engine.Run(context.Background()) }()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		s, err := killedState(lines.Bytes())
		if err == nil {
			err = engine.Apply(context.Background(), s)
		}
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

func killedAt(t *testing.T, more, point string) {
	r := newRig(t)
	r.end(nil)
	second := freePort(t)
	before, after := killedService(r.port, "", 0, aliceID, bobID), killedService(r.port, more, second, bobID, carolID)
	config := daemonConfig{Counters: r.config.CountersPath, Assets: r.assets, Races: filepath.Join(raceFolder(t), "race"), Port: r.port}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(os.Args[0])
	daemon.Env = append(os.Environ(), daemonEnv+"="+string(text), workerEnv+"=")
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err1 := daemon.StdinPipe()
	out, err2 := daemon.StdoutPipe()
	daemon.Stderr = os.Stderr
	if err := errors.Join(err1, err2, daemon.Start()); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	ask := func(service string) (string, error) {
		if _, err := io.WriteString(in, service+"\n"); err != nil {
			return "", err
		}
		return said.ReadString('\n')
	}
	if answer, err := ask(before); err != nil || answer != "<nil>\n" {
		t.Fatalf("the daemon says %q (%v)", answer, err)
	}
	bob := r.dial(bobID)
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), []byte(killsDaemon+point))
	answer, err := ask(after)
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), nil)
	if err == nil && answer == "<nil>\n" { // the change has fewer steps
		_ = daemon.Process.Kill()
	} else if err == nil {
		t.Fatalf("the daemon says %q", answer)
	}
	_ = daemon.Wait()

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
