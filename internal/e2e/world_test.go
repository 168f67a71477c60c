package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"nodeagent/internal/namespace"
)

var (
	buildOnce sync.Once
	built     Programs
	buildErr  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if built.Agent != "" && os.Getenv(programsEnv) == "" {
		_ = os.RemoveAll(filepath.Dir(built.Agent))
	}
	removeReleases()
	os.Exit(code)
}

// programsEnv names the folder of programs that another run of the tests has built.
const programsEnv = "NODE_AGENT_TEST_PROGRAMS"

// inside is namespace.Inside for the tests of this package, which run again without another build of the
// programs.
func inside(t *testing.T, setup string, variables ...string) bool {
	t.Helper()
	return namespace.Inside(t, setup, append(variables, programsEnv+"="+filepath.Dir(programs(t).Agent))...)
}

func programs(t *testing.T) Programs {
	t.Helper()
	buildOnce.Do(buildPrograms)
	must(t, buildErr)
	return built
}

// buildPrograms builds the programs once, unless another run has: also those of another version, to be
// compared.
func buildPrograms() {
	if dir := os.Getenv(programsEnv); dir != "" {
		built = programsIn(dir)
		return
	}
	dir, err := os.MkdirTemp("", "node-e2e-*")
	if err != nil {
		buildErr = err
		return
	}
	built, buildErr = Build(context.Background(), dir, "")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a Core with one node and its agent, which is not started yet.
type world struct {
	t     *testing.T
	ctx   context.Context
	dir   string
	progs Programs
	core  *Core
	agent *Agent
	n     int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), dir: t.TempDir(), progs: programs(t)}
	var err error
	w.core, err = NewCore(w.ctx, w.progs, filepath.Join(w.dir, "core"))
	must(t, err)
	t.Cleanup(func() {
		w.core.Kill()
		w.showLog("core", w.core.process)
	})
	token, err := w.core.AddNode(w.ctx, "node")
	must(t, err)
	w.agent, err = NewAgent(w.ctx, w.progs, filepath.Join(w.dir, "agent"), quickConfig, token)
	must(t, err)
	t.Cleanup(func() {
		if w.agent.process != nil {
			w.agent.Kill()
			w.showLog("agent", w.agent.process)
		}
	})
	return w
}

func (w *world) showLog(name string, p *process) {
	if w.t.Failed() {
		w.t.Logf("log of %s:\n%s", name, p.Log())
	}
}

// start starts the agent and waits until it runs what Core wants.
func (w *world) start() {
	w.t.Helper()
	must(w.t, w.agent.Start(w.ctx))
	w.synced()
}

func (w *world) synced() {
	w.t.Helper()
	must(w.t, w.core.Synced(w.ctx, "node"))
}

func (w *world) protocol(flags ...string) Protocol {
	w.t.Helper()
	p, err := w.core.AddVLESS(w.ctx, "node", flags...)
	must(w.t, err)
	return p
}

func (w *world) subscriber(name string) Subscription {
	w.t.Helper()
	s, err := w.core.AddSubscriber(w.ctx, name)
	must(w.t, err)
	return s
}

func (w *world) target() *Target {
	w.t.Helper()
	target, err := NewTarget()
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, target.Close()) })
	return target
}

// client starts a stock client with an outbound.
func (w *world) client(outbound map[string]any, more ...any) *Client {
	w.t.Helper()
	w.n++
	c, err := NewClient(w.ctx, w.progs, filepath.Join(w.dir, fmt.Sprintf("client-%d", w.n)), outbound, more...)
	must(w.t, err)
	w.t.Cleanup(func() {
		c.Kill()
		w.showLog("client", c.process)
	})
	return c
}

func (w *world) linkClient(link string) *Client {
	w.t.Helper()
	outbound, err := VLESS(link)
	must(w.t, err)
	return w.client(outbound)
}

func (w *world) dial(c *Client, target *Target) net.Conn {
	w.t.Helper()
	conn, err := c.Dial(target.Addr())
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// waitOnline waits until the daemon has stored that so many clients are online.
func (w *world) waitOnline(clients int) {
	w.t.Helper()
	must(w.t, Eventually(w.ctx, func() error {
		status, err := w.agent.Status(w.ctx)
		if err == nil && status.ClientsOnline != clients {
			err = fmt.Errorf("%d clients are online, want %d", status.ClientsOnline, clients)
		}
		return err
	}))
}

// stopAgent stops the daemon, which delivers its last rows.
func (w *world) stopAgent() {
	w.t.Helper()
	must(w.t, w.agent.Stop())
}

// wantUsage compares Core's sums with what the test's servers counted.
func (w *world) wantUsage(want map[Account]Traffic) {
	w.t.Helper()
	have, err := w.core.Usage(w.ctx)
	must(w.t, err)
	for account, traffic := range want {
		if have[account] != traffic {
			w.t.Errorf("user %d through protocol %d: Core has %+v, the servers counted %+v", account.User, account.Protocol, have[account], traffic)
		}
		delete(have, account)
	}
	for account, traffic := range have {
		w.t.Errorf("Core has usage that no client made: user %d through protocol %d: %+v", account.User, account.Protocol, traffic)
	}
}
