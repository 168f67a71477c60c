package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a Debian with a systemd of its own, in a container. It has the network of the host,
// so that the clients and servers of a test reach it on loopback.
type machine struct {
	t    *testing.T
	root string // its file system
	boot *process
	init string   // the number of its process 1, as the host sees it
	more []string // arguments of systemd-nspawn
}

// newMachine boots a Debian, with more arguments of systemd-nspawn. The test is skipped, loudly, where that
// can't be done.
func newMachine(t *testing.T, more ...string) *machine {
	t.Helper()
	base := needDebian(t)
	for tool, from := range map[string]string{"systemd-nspawn": "systemd-container", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is not installed (apt-get install %s)", tool, from)
		}
	}
	m := &machine{t: t, root: filepath.Join(t.TempDir(), "debian"), more: more}
	copyDebian(t, base, m.root)
	m.start(true)
	t.Cleanup(func() {
		if m.boot != nil {
			m.stop()
		}
	})
	return m
}

// needDebian returns a folder with a Debian, which nobody may change. The test is skipped, loudly,
// where it can't be had or used.
func needDebian(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root makes a Debian, and boots it")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Skip("NOT RUN: debootstrap is not installed (apt-get install debootstrap)")
	}
	base, err := debian()
	if err != nil {
		t.Skipf("NOT RUN: Debian can't be had: %v", err)
	}
	return base
}

func copyDebian(t *testing.T, base, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--reflink=auto", base, to).CombinedOutput(); err != nil {
		t.Fatalf("copy Debian: %v\n%s", err, out)
	}
}

// copyIn copies a folder of the host to a path in the machine.
func (m *machine) copyIn(dir, to string) {
	m.t.Helper()
	must(m.t, os.CopyFS(filepath.Join(m.root, to), os.DirFS(dir)))
}

// debian returns a folder with a Debian 12, which stays in the cache of this user. Processes that make
// one take turns.
func debian() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "node-agent-tests", "debian-bookworm-2")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	partial := dir + ".partial"
	if err := removePartial(partial); err != nil {
		return "", err
	}
	// It takes a minute on an idle machine, and several beside other tests.
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Minute)
	defer cancel()
	// The installer checks signatures with openssl; systemd-run needs dbus. A Debian from its installer
	// has both. The number in dir changes with this list.
	out, err := exec.CommandContext(ctx, "debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,openssl", "bookworm", partial).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("debootstrap: %w: %s", err, out[max(0, len(out)-500):])
	}
	return dir, os.Rename(partial, dir)
}

// removePartial removes what a debootstrap has left that was interrupted: it mounts the host's /proc
// there, and the files of the host are not to be removed.
func removePartial(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, dir+"/") {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", at, err)
			}
		}
	}
	return os.RemoveAll(dir)
}

// booting is held while a machine boots: one at a time, since a boot loads the machine, and has a bound.
var booting sync.Mutex

// bootWithin is how long a boot may take. It takes 4 seconds at a load of 9.
const bootWithin = 3 * time.Minute

// start boots the machine and waits until systemd has started everything. first tells that no
// machine was booted before: where systemd-nspawn ends or starts no process 1 then, the host can't boot one, and
// the test is skipped. A systemd that does not start everything in time is a fault.
func (m *machine) start(first bool) {
	m.t.Helper()
	booting.Lock()
	defer booting.Unlock()
	var err error
	// nspawn's own filter has Landlock's calls since systemd 253.
	m.boot, err = start(m.root+".log", "systemd-nspawn", append(m.more, "--register=no", "--keep-unit", "--quiet", "--console=pipe",
		"--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--directory="+m.root, "--boot")...)
	must(m.t, err)
	err = Within(m.t.Context(), bootWithin, func() error {
		if m.boot.ended() {
			return nil // told below
		}
		if m.init = initOf(m.boot.PID()); m.init == "" {
			return errors.New("it has no process 1 yet")
		}
		out, _ := m.command("timeout 20 systemctl is-system-running").CombinedOutput()
		if state := strings.TrimSpace(string(out)); state != "running" && state != "degraded" {
			return fmt.Errorf("systemd says %q", state)
		}
		return nil
	})
	if m.boot.ended() {
		err = errors.New("systemd-nspawn ended")
	}
	if err == nil {
		return
	}
	able := m.init != "" && !m.boot.ended()
	m.boot.Kill()
	if first && !able {
		m.t.Skipf("NOT RUN: systemd does not boot in a container here: %v\n%s", err, m.boot.Log())
	}
	m.t.Fatalf("boot the machine: %v\n%s", err, m.boot.Log())
}

// initOf returns the process below pid that is process 1 of a container.
func initOf(pid int) string {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // none of a process that has ended
	for child := range strings.FieldsSeq(string(children)) {
		status, _ := os.ReadFile("/proc/" + child + "/status")
		for line := range strings.Lines(string(status)) {
			if ids, is := strings.CutPrefix(line, "NSpid:"); is && len(strings.Fields(ids)) > 1 && strings.Fields(ids)[1] == "1" {
				return child
			}
		}
		if number, err := strconv.Atoi(child); err == nil {
			if found := initOf(number); found != "" {
				return found
			}
		}
	}
	return ""
}

// stop shuts the machine down.
func (m *machine) stop() {
	m.t.Helper()
	_ = m.boot.cmd.Process.Signal(syscall.SIGTERM) // systemd-nspawn asks process 1 to power off
	select {
	case <-m.boot.done:
	case <-time.After(90 * time.Second):
		m.t.Errorf("the machine did not shut down: %s", m.boot.Log())
		m.boot.Kill()
	}
	m.boot = nil
}

// reboot shuts the machine down and boots it again.
func (m *machine) reboot() {
	m.t.Helper()
	m.stop()
	m.start(false)
}

func (m *machine) command(script string) *exec.Cmd {
	cmd := exec.Command("nsenter", "--target", m.init, "--mount", "--uts", "--ipc", "--pid", "--root", "/bin/sh", "-ec", script)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root"}
	return cmd
}

// try runs a shell script as root in the machine, and returns what it said on both outputs.
func (m *machine) try(script string) (string, error) {
	out, err := m.command(script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try, and ends the test where the script fails.
func (m *machine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		journal, _ := m.try("journalctl --no-pager -n 60 -o cat -u node-agent -u node-core")
		m.t.Fatalf("in the machine, %s: %v\n%s\nits journal:\n%s", script, err, out, journal)
	}
	return out
}

// do runs a node-core command in the machine and decodes the JSON value that it prints into answer.
func (m *machine) do(answer any, command string) error {
	cmd := m.command("node-core " + command + " --output json")
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("node-core %s: %w: %s", command, err, words.String())
	}
	return decode(out, answer)
}

// pid returns the number of node-agent's main process in the machine; 0 where it does not run.
func (m *machine) pid() string { return m.property("MainPID") }

// property returns a property of the unit node-agent.
func (m *machine) property(name string) string {
	m.t.Helper()
	return m.run("systemctl show --value -p " + name + " node-agent")
}

// serves waits until the daemon is active again, in another process than before.
func (m *machine) serves(before string) {
	m.t.Helper()
	must(m.t, Eventually(m.t.Context(), func() error {
		if now, state := m.pid(), m.property("ActiveState"); state != "active" || now == before {
			return fmt.Errorf("node-agent is %s, process %s, before %s", state, now, before)
		}
		return nil
	}))
}
