package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func decode(data []byte, answer any) error {
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("read %.200q: %w", data, err)
	}
	return nil
}

// deb returns the path of a package in the machine.
func deb(program, version string) string {
	return fmt.Sprintf("/dist/%s/%s_%s_%s.deb", version, program, version, runtime.GOARCH)
}

// install installs a package by hand and checks its last words. The package starts nothing.
func (m *machine) install(program, version, words string) {
	m.t.Helper()
	if said := m.run("dpkg -i " + deb(program, version)); !strings.Contains(said, words) {
		m.t.Errorf("the installation of %s does not say %q:\n%s", program, words, said)
	}
}

// The whole life of a node on a Debian with a real systemd: installation from packages, traffic,
// reload, upgrade, crash, hang, full disk, reboot without Core, removal, purge. Every byte is counted
// once.
func TestDebian(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.copyIn(release(t, "1.0.0"), "/dist/1.0.0")
	m.copyIn(release(t, "1.1.0", "-kinds", "deb", "-programs", "node-agent"), "/dist/1.1.0")
	w := &debianWorld{machine: m, t: t}
	w.installCore()
	w.installAgent()

	target, err := NewTarget()
	must(t, err)
	t.Cleanup(func() { _ = target.Close() })
	outbound, err := VLESS(w.subscription.Links[0])
	must(t, err)
	w.client, err = NewClient(t.Context(), programs(t), filepath.Join(t.TempDir(), "client"), outbound)
	must(t, err)
	t.Cleanup(w.client.Kill)
	w.target = target
	w.traffic("after the installation")

	w.reload()
	w.unnoticed("an upgrade", w.upgrade)
	w.unnoticed("a restart", func() {
		before := w.pid()
		w.run("systemctl restart node-agent")
		w.serves(before)
	})
	w.restartOfCore()
	w.unnoticed("a crash", w.crash)
	w.unnoticed("a hang", w.hang)
	w.stopOfAHungDaemon()
	w.fullDisk()
	w.rebootWithoutCore()
	w.remove()
}

// debianWorld is a machine with Core and a node, a client, and a server behind the tunnel.
type debianWorld struct {
	*machine
	t            *testing.T
	port         int // of Core
	subscription Subscription
	client       *Client
	target       *Target
}

func (w *debianWorld) installCore() {
	w.t.Helper()
	w.install("node-core", "1.0.0", "systemctl enable --now node-core")
	if state, _ := w.try("systemctl is-active node-core"); state != "inactive" {
		w.t.Errorf("node-core is %s after its installation", state)
	}
	var err error
	w.port, err = FreePort()
	must(w.t, err)
	w.run(fmt.Sprintf("echo 'NODE_CORE_OPTIONS=--listen 127.0.0.1:%d --public-url https://127.0.0.1:%d' >/etc/node-core/environment", w.port, w.port))
	w.run("systemctl enable --now node-core")
}

// installAgent installs node-agent by hand, which starts nothing, and goes on with the line that
// node-core prints.
func (w *debianWorld) installAgent() {
	w.t.Helper()
	var added struct{ JoinToken string }
	must(w.t, w.do(&added, "node add fra1"))
	must(w.t, os.WriteFile(filepath.Join(w.root, "outbound.json"), []byte(freedomNamesLoopback), 0o644))
	w.run("node-core outbound add --node fra1 --outbound /outbound.json")
	port, err := FreePort()
	must(w.t, err)
	w.run(fmt.Sprintf("node-core protocol add --node fra1 --protocol vless --listen 127.0.0.1 --port %d", port))
	w.run("node-core user add alice")
	must(w.t, w.do(&w.subscription, "subscription add --user alice"))

	w.install("node-agent", "1.0.0", "node-agent register TOKEN")
	if state, _ := w.try("systemctl is-active node-agent || true; systemctl is-enabled node-agent"); state != "inactive\ndisabled" {
		w.t.Errorf("node-agent is %q after its installation", state)
	}
	said := w.run("sh /dist/1.0.0/install.sh --from /dist/1.0.0 --unsigned --host 127.0.0.1 --ip 127.0.0.1 --token " + added.JoinToken)
	if !strings.HasSuffix(said, "this node is registered and serves") {
		w.t.Errorf("the installer ends with:\n%s", said)
	}
	must(w.t, Eventually(w.t.Context(), func() error {
		if text := w.property("StatusText"); !strings.HasPrefix(text, "revision ") || !strings.HasSuffix(text, "all is well") {
			return fmt.Errorf("the status text is %q", text)
		}
		return nil
	}))
	w.confined()
	// As systemd's own process sees the units, in tenths.
	w.run("systemd-analyze security --no-pager --threshold=15 node-core node-agent")
	must(w.t, Eventually(w.t.Context(), func() error { // the link names the node's address once it runs
		var shown Subscription
		if err := w.do(&shown, fmt.Sprintf("subscription show %d", w.subscription.ID)); err != nil {
			return err
		}
		if len(shown.Links) == 0 || !strings.Contains(shown.Links[0], "127.0.0.1") {
			return fmt.Errorf("the links are %q", shown.Links)
		}
		w.subscription.Links = shown.Links
		return nil
	}))
}

// traffic moves bytes through the node, as soon as it serves.
func (w *debianWorld) traffic(when string) {
	w.t.Helper()
	if err := Eventually(w.t.Context(), func() error { return w.client.Exchange(w.target.Addr(), 1_000_000, 2_000_000) }); err != nil {
		w.t.Fatalf("%s: %v\n%s", when, err, w.run("journalctl --no-pager -n 60 -o cat -u node-agent; systemctl status node-agent || true"))
	}
}

// counted waits until Core has what the server behind the tunnel counted, to the byte. A daemon that
// was stopped has delivered the rows of its last minute; one that runs keeps them until it is over.
func (w *debianWorld) counted() {
	w.t.Helper()
	must(w.t, Eventually(w.t.Context(), func() error {
		var rows []UsageRow
		if err := w.do(&rows, "usage --limit 100000"); err != nil {
			return err
		}
		var have Traffic
		for _, r := range rows {
			have.Up += r.BytesUp
			have.Down += r.BytesDown
		}
		if want := w.target.Traffic(); have != want {
			return fmt.Errorf("Core has %+v, the server counted %+v", have, want)
		}
		return nil
	}))
}

// A reload keeps the process and its connections.
func (w *debianWorld) reload() {
	w.t.Helper()
	before := w.pid()
	conn, err := w.client.Dial(w.target.Addr())
	must(w.t, err)
	defer conn.Close()
	must(w.t, Exchange(conn, 1000, 1000))
	w.run(`echo 'log_level = "debug"' >/etc/node-agent/config.toml; systemctl reload node-agent`)
	must(w.t, Eventually(w.t.Context(), func() error {
		_, err := w.try(`journalctl -o cat -u node-agent | grep -q "the configuration was read again"`)
		return err
	}))
	must(w.t, Exchange(conn, 1000, 1000))
	if now := w.pid(); now != before {
		w.t.Errorf("the reload started process %s in the place of %s", now, before)
	}
}

// unnoticed does something to the daemon while a connection is open, which goes on.
func (w *debianWorld) unnoticed(what string, do func()) {
	w.t.Helper()
	conn, err := w.client.Dial(w.target.Addr())
	must(w.t, err)
	defer conn.Close()
	must(w.t, Exchange(conn, 1000, 1000))
	do()
	if err := bounded(conn, 2000, 2000); err != nil {
		w.t.Errorf("%s ended a client's connection: %v", what, err)
	}
}

// While node-core restarts, nobody is refused: systemd keeps its listening socket.
func (w *debianWorld) restartOfCore() {
	w.t.Helper()
	stop := make(chan struct{})
	refused := make(chan error, 1)
	go func() {
		for taken := 0; ; taken++ {
			select {
			case <-stop:
				refused <- nil
				return
			default:
			}
			conn, err := net.DialTimeout("tcp", loopback(w.port), Patience)
			if err != nil {
				refused <- fmt.Errorf("after %d connections: %w", taken, err)
				return
			}
			_ = conn.Close()
		}
	}()
	w.run("systemctl restart node-core; systemctl restart node-core")
	close(stop)
	if err := <-refused; err != nil {
		w.t.Errorf("a restart of node-core refused a connection: %v", err)
	}
}

// A daemon that hangs is killed at a stop, and what it leaves is ended.
func (w *debianWorld) stopOfAHungDaemon() {
	w.t.Helper()
	w.run(`mkdir -p /run/systemd/system/node-agent.service.d
		printf '[Service]\nTimeoutStopSec=2\nWatchdogSec=0\n' >/run/systemd/system/node-agent.service.d/soon.conf
		systemctl daemon-reload
		kill -STOP ` + w.pid() + `
		systemctl stop node-agent || true`)
	w.nothingRuns("the stop of a daemon that hangs")
	w.run(`rm -r /run/systemd/system/node-agent.service.d
		systemctl daemon-reload
		systemctl reset-failed node-agent || true
		systemctl start node-agent`)
	w.traffic("after the stop of a daemon that hangs")
}

// nothingRuns checks that no process of node-agent runs.
func (w *debianWorld) nothingRuns(when string) {
	w.t.Helper()
	if out, err := w.try("ls -l /proc/*/exe 2>/dev/null | grep node-agent"); err == nil {
		w.t.Errorf("after %s there runs %s", when, out)
	}
}

// An upgrade puts another version in the place of what runs, in the same process, and keeps its state
// and the configuration that was edited. A version that does not start changes nothing.
func (w *debianWorld) upgrade() {
	w.t.Helper()
	before := w.pid()
	w.run(`cp -a /usr/bin/node-agent /usr/bin/node-agent.good
		head -c 1000000 /usr/bin/node-agent.good >/usr/bin/node-agent.new
		chmod 755 /usr/bin/node-agent.new
		mv /usr/bin/node-agent.new /usr/bin/node-agent
		systemctl reload node-agent`)
	w.says("can't take over; version 1.0.0 goes on")
	w.run("mv /usr/bin/node-agent.good /usr/bin/node-agent; systemctl reload node-agent")
	w.run("dpkg -i --force-confdef --force-confold " + deb("node-agent", "1.1.0"))
	must(w.t, Eventually(w.t.Context(), func() error {
		out, err := w.try("node-agent status --output json")
		if err == nil && !strings.Contains(out, `"version": "1.1.0"`) && !strings.Contains(out, `"version":"1.1.0"`) {
			err = fmt.Errorf("the status is %.200s", out)
		}
		return err
	}))
	must(w.t, Eventually(w.t.Context(), func() error { // systemd is told of the end of the reload a moment later
		if now, state := w.pid(), w.property("ActiveState"); now != before || state != "active" {
			return fmt.Errorf("after the upgrade process %s is %s; before it was %s", now, state, before)
		}
		return nil
	}))
	if got := w.run("node-agent version"); !strings.HasPrefix(got, "node-agent 1.1.0\n") {
		w.t.Errorf("the version after the upgrade is %s", got)
	}
	if got := w.run("cat /etc/node-agent/config.toml"); got != `log_level = "debug"` {
		w.t.Errorf("the configuration after the upgrade is %q", got)
	}
	w.traffic("after the upgrade")
}

func (w *debianWorld) crash() {
	w.t.Helper()
	before := w.pid()
	w.run("kill -KILL " + before)
	w.serves(before)
	w.traffic("after a crash")
}

// A daemon that hangs is ended by the watchdog.
func (w *debianWorld) hang() {
	w.t.Helper()
	w.run(`mkdir -p /run/systemd/system/node-agent.service.d
		printf '[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\n' >/run/systemd/system/node-agent.service.d/soon.conf
		systemctl daemon-reload
		systemctl restart node-agent`)
	before := w.pid()
	w.run("kill -STOP " + before)
	w.serves(before)
	if _, err := w.try(`journalctl -o cat -u node-agent | grep -q "Watchdog timeout"`); err != nil {
		w.t.Error("the journal does not name the watchdog")
	}
	w.run("rm -r /run/systemd/system/node-agent.service.d && systemctl daemon-reload")
	w.traffic("after a hang")
}

// On a full disk the daemon serves, says what is wrong, and starts again after a crash. Once there is
// room, it takes what it could not store.
func (w *debianWorld) fullDisk() {
	w.t.Helper()
	// A change that is larger than the free pages of the state file, also compressed.
	networks := make([]string, 20_000)
	for i := range networks {
		var address [16]byte
		_, _ = rand.Read(address[:]) // it never fails
		networks[i] = netip.AddrFrom16(address).String()
	}
	large, err := json.Marshal(map[string]any{"tag": "large", "protocol": "freedom", "settings": map[string]any{
		"finalRules": []any{map[string]any{"action": "allow", "ip": networks}},
	}})
	must(w.t, err)
	must(w.t, os.WriteFile(filepath.Join(w.root, "large.json"), large, 0o644))
	w.run(`systemctl stop node-agent
		rm -f /var/lib/node-agent/node-agent.before /var/lib/node-agent/upgrade.json # of the upgrade: the disk is small
		cp -a /var/lib/node-agent /var/lib/before
		mount -t tmpfs -o size=8m,mode=0700,uid=node-agent,gid=node-agent tmpfs /var/lib/node-agent
		mountpoint -q /var/lib/node-agent
		cp -a --sparse=always /var/lib/before/. /var/lib/node-agent/
		systemctl start node-agent
		! head -c 16M /dev/zero >/var/lib/node-agent/ballast
		node-core outbound add --node fra1 --outbound /large.json`)
	w.says("no space left on device")
	w.traffic("on a full disk")
	w.told("no space left on device")
	before := w.pid()
	w.run("kill -KILL " + before)
	w.serves(before)
	w.traffic("after a crash on a full disk")

	w.run("rm /var/lib/node-agent/ballast")
	w.says("all is well")
	w.traffic("once there is room")
	w.run(`systemctl stop node-agent
		cp -a --sparse=always /var/lib/node-agent/. /var/lib/before/
		umount /var/lib/node-agent
		cp -a --sparse=always /var/lib/before/. /var/lib/node-agent/
		rm -r /var/lib/before
		systemctl start node-agent`)
	w.traffic("on another disk")
}

// confined looks at what the worker may do inside of the unit.
func (w *debianWorld) confined() {
	w.t.Helper()
	if status := w.run("node-agent status"); !strings.Contains(status, "confined by ") || strings.Contains(status, "a filter of system calls refuses") {
		w.t.Errorf("the worker is not confined in its unit:\n%s", status)
	}
	const netAdmin = 1 << 12 // include/uapi/linux/capability.h
	effective, err := strconv.ParseUint(w.run(`for p in /proc/[0-9]*; do
		if grep -qsa xray-worker $p/cmdline; then sed -n 's/^CapEff:\s*//p' $p/status; break; fi
	done`), 16, 64)
	if err != nil || effective&netAdmin != 0 {
		w.t.Errorf("the capabilities of the worker are %x: %v", effective, err)
	}
}

// says waits until the daemon's status text, which systemd shows, has a part.
func (w *debianWorld) says(part string) {
	w.t.Helper()
	must(w.t, Eventually(w.t.Context(), func() error {
		if text := w.property("StatusText"); !strings.Contains(text, part) {
			return fmt.Errorf("the status text is %q, want %q in it", text, part)
		}
		return nil
	}))
}

// told waits until Core has an error of the node with a part.
func (w *debianWorld) told(part string) {
	w.t.Helper()
	must(w.t, Eventually(w.t.Context(), func() error {
		if errors := w.run("node-core node errors fra1"); !strings.Contains(errors, part) {
			return fmt.Errorf("of errors Core has %q, want %q among them", errors, part)
		}
		return nil
	}))
}

// After a reboot the node serves without Core, and Core gets what was counted once it is back.
func (w *debianWorld) rebootWithoutCore() {
	w.t.Helper()
	w.run("systemctl disable --now node-core")
	w.reboot()
	if state, _ := w.try("systemctl is-active node-core"); state != "inactive" {
		w.t.Errorf("node-core is %s after the reboot", state)
	}
	w.traffic("after a reboot without Core")
	must(w.t, Eventually(w.t.Context(), func() error {
		if text := w.property("StatusText"); !strings.Contains(text, "Core ") {
			return fmt.Errorf("the status text is %q", text)
		}
		return nil
	}))
	w.run("systemctl enable --now node-core")
}

// A removal keeps the state, and an installation goes on with it. A purge leaves nothing.
func (w *debianWorld) remove() {
	w.t.Helper()
	w.run("dpkg -r node-agent")
	w.counted()
	w.run("test -e /var/lib/node-agent/node.db && test ! -e /usr/bin/node-agent")
	w.nothingRuns("the removal")
	w.install("node-agent", "1.1.0", "has its state from before")
	w.run("systemctl enable --now node-agent")
	w.traffic("after another installation")
	w.run("systemctl stop node-agent")
	w.counted()
	w.run("dpkg --purge node-agent")
	w.run(`for left in /var/lib/node-agent /etc/node-agent /run/node-agent /usr/lib/systemd/system/node-agent.service; do
		if test -e $left; then ls -la $left; exit 1; fi
	done`)
	if out, err := w.try("getent passwd node-agent"); err == nil {
		w.t.Errorf("after the purge there is the user %s", out)
	}
}
