package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// install makes the agent's program a file of its own, which a test can replace.
func (u *unnoticed) install() {
	u.t.Helper()
	original := u.agent.path
	u.agent.path = filepath.Join(u.dir, "bin", "node-agent")
	must(u.t, os.MkdirAll(filepath.Dir(u.agent.path), 0o755))
	u.put(original)
}

// program puts a file into the place of the agent's program, as a package does.
func (u *unnoticed) program(data []byte) {
	u.t.Helper()
	must(u.t, os.WriteFile(u.agent.path+".new", data, 0o755))
	must(u.t, os.Rename(u.agent.path+".new", u.agent.path))
}

// put puts a build into the place of the agent's program.
func (u *unnoticed) put(build string) {
	u.t.Helper()
	data, err := os.ReadFile(build)
	must(u.t, err)
	u.program(data)
}

func (u *unnoticed) reload() {
	u.t.Helper()
	must(u.t, u.agent.cmd.Process.Signal(syscall.SIGHUP))
}

// reloaded reloads, and waits until the daemon has read its configuration again.
func (u *unnoticed) reloaded() {
	u.t.Helper()
	log, err := os.Open(u.agent.log)
	must(u.t, err)
	defer log.Close()
	_, err = log.Seek(0, io.SeekEnd)
	must(u.t, err)
	u.reload()
	var said []byte
	must(u.t, Eventually(u.ctx, func() error {
		more, err := io.ReadAll(log)
		if said = append(said, more...); err == nil && !bytes.Contains(said, []byte("the configuration was read again")) {
			err = errors.New("the daemon has not reloaded")
		}
		return err
	}))
}

// drainLong lets the workers that were replaced serve as long as the test takes.
func (u *unnoticed) drainLong() {
	u.t.Helper()
	path := u.agent.file("config.toml")
	config, err := os.ReadFile(path)
	must(u.t, err)
	must(u.t, os.WriteFile(path, []byte(strings.Replace(string(config), "[xray]\n", "[xray]\ndrain_timeout = \"5h\"\n", 1)), 0o600))
}

// join adds a client of MTProto to those that move bytes.
func (u *unnoticed) join(mtproto Protocol, centre *Target) {
	u.t.Helper()
	p := &unnoticedClient{row: rowInbound{protocolRow{name: "mtproto", protocol: "mtproto"}, mtproto}, target: centre, conn: u.telegramClient(u.user, mtproto)}
	must(u.t, Exchange(p.conn, 0, 1))
	u.people = append(u.people, p)
	u.moving.Go(func() { u.move(p) })
}

// upgraded puts another build into the place of the agent's program, reloads, and waits until a worker
// of that build serves.
func (u *unnoticed) upgraded(build string) {
	u.t.Helper()
	u.drains = true
	before, err := u.agent.Status(u.ctx)
	must(u.t, err)
	u.put(build)
	u.reload()
	must(u.t, Eventually(u.ctx, func() error {
		now, err := u.agent.Status(u.ctx)
		if err == nil && (now.Engines.Xray.State != "running" || now.Engines.Xray.PID == before.Engines.Xray.PID) {
			err = errors.New("no worker of the other build has taken over")
		}
		return err
	}))
}

// Reloads, restarts, SIGKILLs, upgrades and downgrades come in any order, mixed with changes of the
// configuration: no connection over TCP, QUIC or mKCP ends, none is refused, no datagram is lost, and every byte is counted once. MTProto
// takes part with the double.
func TestUnnoticedMix(t *testing.T) {
	if !migrating(t) {
		return
	}
	telemts(t, func(t *testing.T, telemt string) {
		var mtproto Protocol
		var centre *Target
		var builds [2]string
		u := newUnnoticed(t, unnoticedRows(), func(u *unnoticed) {
			u.flowing = func(r protocolRow) bool { return r.protocol != "socks" } // with other accounts it leaves by another port
			u.configure(fmt.Sprintf("[telemt]\nbinary = %q\n", telemt))
			u.drainLong()
			builds = [2]string{u.agent.path, anotherBuild(t)}
			u.install()
			var err error
			mtproto, err = u.core.AddMTProto(u.ctx, "node", "--tls-domain", "site.test")
			must(t, err)
			centre = u.centre()
		})
		u.join(mtproto, centre)
		upgrades := 0
		kinds := map[string]func(){
			"a reload":  u.reloaded,
			"a restart": func() { must(t, u.agent.Leave()); u.goOn(); must(t, u.agent.Start(u.ctx)) },
			"a kill":    func() { u.agent.Crash(); u.goOn(); must(t, u.agent.Start(u.ctx)) },
			"an upgrade": func() {
				upgrades++
				u.upgraded(builds[upgrades%2])
			},
		}
		times := 1
		if os.Getenv("UNNOTICED_ROUNDS") != "" {
			times = u.rounds
		}
		var all []string
		for what := range kinds {
			for range times {
				all = append(all, what)
			}
		}
		u.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for i, what := range all {
			if u.random.IntN(2) == 0 {
				u.change(i)
			}
			u.pause(300 * time.Millisecond)
			kinds[what]()
			u.goOn()
			if t.Failed() {
				t.Fatalf("after %s, which is %d of %q", what, i, all)
			}
		}
		u.synced()
		u.counted()
		u.wantOneVisit()
	})
}

// A session of MTProto outlives the daemon: its bytes are counted once, and Core is told of one visit.
func TestMTProtoOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	telemts(t, func(t *testing.T, telemt string) {
		w := newWorld(t)
		w.configure(fmt.Sprintf("[telemt]\nbinary = %q\n", telemt))
		mtproto, err := w.core.AddMTProto(w.ctx, "node", "--tls-domain", "site.test")
		must(t, err)
		target, alice := w.centre(), w.subscriber("alice")
		w.start()
		conn := w.telegramClient(alice, mtproto)
		for _, end := range []func(){w.agent.Crash, func() { must(t, w.agent.Leave()) }} {
			must(t, Exchange(conn, 50_007, 60_011))
			end()
			must(t, Exchange(conn, 1009, 2003))
			must(t, w.agent.Start(w.ctx))
			must(t, Exchange(conn, 17, 19))
		}
		w.synced()
		_ = conn.Close()
		w.stopAgent()
		w.wantUsage(map[Account]Traffic{{alice.UserID, mtproto.ID}: target.Traffic()})
		w.wantMTProtoEvents(alice)
		events, err := w.core.Events(w.ctx)
		must(t, err)
		if len(events) != 2 {
			t.Errorf("Core was told %+v, want one visit", events)
		}
		if out, err := exec.Command("pgrep", "-f", w.agent.file("state")).Output(); err == nil {
			t.Errorf("after the stop there runs %s", out)
		}
	})
}
