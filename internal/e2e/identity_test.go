package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nodeagent/internal/namespace"
)

// agentDo runs a command of node-agent with the folders of the node and returns its output.
func (w *world) agentDo(args ...string) (string, error) {
	w.t.Helper()
	stdout, stderr, err := output(w.ctx, w.agent.path, append(args, "--config", w.agent.file("config.toml"), "--state-dir", w.agent.file("state"), "--runtime-dir", w.agent.file("run"))...)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr)
	}
	return stdout, err
}

// served returns an error unless a subscriber's client is let in.
func (w *world) served(s Subscription, target *Target) error {
	return w.linkClient(s.Links[0]).Exchange(target.Addr(), 10, 20)
}

// Core's database is set back to an older state in the middle of the night, in three ways.
// As many edits as were lost are made at once. Node and Core end on the same document: nobody
// is served whom Core does not know, and no id is given out twice.
func TestCoreIsRestored(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]func(w *world, backup string) error{
		"by the command": func(w *world, backup string) error {
			var restored struct{ Epoch int64 }
			err := w.core.Do(w.ctx, &restored, "restore", backup, "--yes")
			if err == nil && restored.Epoch != 2 {
				err = fmt.Errorf("the epoch is %d, want 2", restored.Epoch)
			}
			return err
		},
		"by a plain copy over the file": func(w *world, backup string) error {
			raw, err := os.ReadFile(backup)
			return errors.Join(err, os.WriteFile(filepath.Join(w.core.dir, "core.db"), raw, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.protocol()
			alice := w.subscriber("alice")
			w.start()
			target := w.target()
			must(t, w.served(alice, target))
			backup := filepath.Join(w.dir, "backup.db")
			_, stderr, err := output(w.ctx, w.core.path, "backup", backup, "--data-dir", w.core.dir)
			if err != nil {
				t.Fatal(stderr)
			}

			lost := []Subscription{w.subscriber("lost1"), w.subscriber("lost2"), w.subscriber("lost3")}
			w.synced()
			must(t, w.served(lost[0], target))
			must(t, w.core.Stop())
			must(t, restore(w, backup))
			must(t, w.core.Start(w.ctx))
			// As many edits as were lost, at once; the node still backs off.
			made := []Subscription{w.subscriber("new1"), w.subscriber("new2"), w.subscriber("new3")}
			w.synced()
			for i, s := range made {
				if s.ID <= lost[2].ID || s.UserID <= lost[2].UserID {
					t.Errorf("subscription %d of user %d has ids that were given out before: %d and %d", s.ID, s.UserID, lost[2].ID, lost[2].UserID)
				}
				must(t, w.served(s, target))
				if err := w.served(lost[i], target); err == nil {
					t.Errorf("subscription %d is served, and Core does not know it", lost[i].ID)
				}
			}
			must(t, w.served(alice, target))
			status, err := w.agent.Status(w.ctx)
			must(t, err)
			if status.Core.Identity.Epoch != 2 {
				t.Errorf("the node knows the epoch %d, want 2", status.Core.Identity.Epoch)
			}
			w.stopAgent()
			var checked any
			must(t, w.core.Do(w.ctx, &checked, "check"))
		})
	}
}

// Core moves to another address while rows wait. The node follows by command, or by itself to
// the address that Core had announced. It keeps its rows and its configuration.
func TestCoreMoves(t *testing.T) {
	t.Parallel()
	for name, move := range map[string]func(w *world, from, to string){
		"the operator says so": func(w *world, _, to string) {
			must(w.t, w.core.Start(w.ctx))
			text, err := w.agentDo("core", "set", "https://"+to)
			must(w.t, err)
			if !strings.Contains(text, to) {
				w.t.Errorf("core set prints %q", text)
			}
		},
		"Core has announced it": func(w *world, _, _ string) { must(w.t, w.core.Start(w.ctx)) },
		"the daemon is stopped": func(w *world, _, to string) {
			w.stopAgent()
			must(w.t, w.core.Start(w.ctx))
			_, err := w.agentDo("core", "set", "https://"+to)
			must(w.t, err)
			must(w.t, w.agent.Start(w.ctx))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			protocol := w.protocol()
			alice := w.subscriber("alice")
			w.start()
			target := w.target()
			client := w.linkClient(alice.Links[0])
			must(t, client.Exchange(target.Addr(), 1000, 2000))
			port, err := FreePort()
			must(t, err)
			from, to := w.core.listen, loopback(port)
			if name == "Core has announced it" {
				var said any
				must(t, w.core.Do(w.ctx, &said, "announce", "https://"+to))
				must(t, Eventually(w.ctx, func() error {
					status, err := w.agent.Status(w.ctx)
					if err == nil && status.Core.Identity.NextURL != "https://"+to {
						err = fmt.Errorf("the node knows the address %q", status.Core.Identity.NextURL)
					}
					return err
				}))
			}
			must(t, w.core.Stop())
			must(t, client.Exchange(target.Addr(), 300, 400)) // with Core away
			w.core.listen = to
			move(w, from, to)
			bob := w.subscriber("bob")
			w.synced()
			must(t, w.served(bob, target))
			status, err := w.agent.Status(w.ctx)
			must(t, err)
			if status.Core.URL != "https://"+to {
				t.Errorf("the node's Core is at %s, want %s", status.Core.URL, to)
			}
			w.stopAgent()
			usage, err := w.core.Usage(w.ctx)
			must(t, err)
			all := usage[Account{alice.UserID, protocol.ID}].plus(usage[Account{bob.UserID, protocol.ID}])
			if all != target.Traffic() {
				t.Errorf("Core has %+v, the target counted %+v", all, target.Traffic())
			}
		})
	}
}

// At an address where another Core answers, or none, a node stays where it is.
func TestCoreSetRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.protocol()
	w.start()
	before, err := w.agent.Status(w.ctx)
	must(t, err)
	other, err := NewCore(w.ctx, w.progs, filepath.Join(w.dir, "other"))
	must(t, err)
	defer other.Kill()
	nobody, err := FreePort()
	must(t, err)
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"core.example"}, "want https://HOST"},
		{[]string{"https://" + loopback(nobody)}, "no Core answers at"},
		{[]string{"https://" + other.listen}, "give the authority that signed it with --core-ca"},
		{[]string{"https://" + other.listen, "--core-ca", w.agent.file("config.toml")}, "has no PEM certificate"},
	} {
		if _, err := w.agentDo(append([]string{"core", "set"}, test.args...)...); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("core set %s: %v, want %q", test.args, err, test.says)
		}
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_ = plain.Close()
	insecure := &Core{path: w.progs.Core, dir: filepath.Join(w.dir, "insecure"), listen: plain.Addr().String()}
	insecure.process, err = start(insecure.dir+".log", insecure.path, "serve", "--data-dir", insecure.dir, "--listen", insecure.listen, "--insecure-http")
	must(t, err)
	defer insecure.Kill()
	must(t, Eventually(w.ctx, func() error { var n []any; return insecure.Do(w.ctx, &n, "node", "list") }))
	if _, err := w.agentDo("core", "set", "http://"+insecure.listen); err == nil || !strings.Contains(err.Error(), "does not know this node; nothing was changed") {
		t.Errorf("at another Core: %v", err)
	}
	after, err := w.agent.Status(w.ctx)
	must(t, err)
	if after.Core.URL != before.Core.URL {
		t.Errorf("the node's Core is at %s now", after.Core.URL)
	}
	w.subscriber("alice")
	w.synced()
}

// A node gets another key, with Core and daemon killed at any step. The old key is refused in
// the end, and the node goes on.
func TestKeyIsRotated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.protocol()
	w.start()
	key := func() string {
		return stateKey(t, w.agent)
	}
	old := key()
	rotate := func() {
		var answer any
		must(t, w.core.Do(w.ctx, &answer, "node", "rotate", "node"))
	}
	rotate()
	rotated := func() error {
		var node struct{ KeyOffered bool }
		err := w.core.Do(w.ctx, &node, "node", "show", "node")
		if err == nil && node.KeyOffered {
			err = errors.New("the node has not used its next key")
		}
		return err
	}
	must(t, Eventually(w.ctx, rotated))
	must(t, Eventually(w.ctx, func() error {
		if key() == old {
			return errors.New("the node still has its old key")
		}
		return nil
	}))
	// The daemon is killed while a key is offered, again and again.
	for range 5 {
		rotate()
		w.agent.Kill()
		must(t, w.agent.Start(w.ctx))
		w.subscriber(fmt.Sprintf("user%d", w.nextNumber()))
		w.synced()
	}
	// Core is killed right after it has offered one.
	rotate()
	w.core.Kill()
	must(t, w.core.Start(w.ctx))
	must(t, Eventually(w.ctx, rotated))
	w.subscriber("last")
	w.synced()
}

// stateKey returns the auth key in a copy of the node's state.
func stateKey(t *testing.T, a *Agent) string {
	t.Helper()
	id, err := stateCopy(t, a).Identity()
	must(t, err)
	return id.AuthKey.Reveal()
}

func (w *world) nextNumber() int { w.n++; return w.n }

// A disk is cloned while the daemon runs and bytes wait; both come up. Core tells the operator
// and counts no byte twice.
func TestClonedDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	protocol := w.protocol()
	alice := w.subscriber("alice")
	w.start()
	target := w.target()
	client := w.linkClient(alice.Links[0])
	must(t, client.Exchange(target.Addr(), 10_000, 20_000))
	w.waitOnline(1)
	clone := &Agent{path: w.agent.path, dir: filepath.Join(w.dir, "clone")}
	must(t, os.MkdirAll(clone.file("state"), 0o700))
	copyFile(t, w.agent.file("state/node.db"), clone.file("state/node.db"))
	copyFile(t, w.agent.file("config.toml"), clone.file("config.toml"))
	must(t, clone.Start(w.ctx))
	defer clone.Kill()
	must(t, Eventually(w.ctx, func() error {
		var node struct{ TwoDaemonsAt *string }
		err := w.core.Do(w.ctx, &node, "node", "show", "node")
		if err == nil && node.TwoDaemonsAt == nil {
			err = errors.New("Core has not told two daemons")
		}
		return err
	}))
	if log := w.core.Log(); !strings.Contains(log, "two daemons use one node's key") {
		t.Errorf("Core's log does not say so:\n%s", log)
	}
	must(t, client.Exchange(target.Addr(), 500, 600))
	must(t, clone.Stop())
	w.stopAgent()
	w.wantUsage(map[Account]Traffic{{alice.UserID, protocol.ID}: target.Traffic()})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, errors.Join(err, out.Close()))
}

// The machine-id is another one than at the registration. The node serves on, gets changes of
// its configuration, and sends nothing until it is adopted.
func TestOtherMachine(t *testing.T) {
	namespace.Parallel(t)
	if !inside(t, ":") {
		return
	}
	w := newWorld(t)
	protocol := w.protocol()
	alice := w.subscriber("alice")
	w.start()
	target := w.target()
	w.stopAgent()
	other := filepath.Join(w.dir, "machine-id")
	must(t, os.WriteFile(other, []byte("0123456789abcdef0123456789abcdef\n"), 0o644))
	if _, stderr, err := output(w.ctx, "mount", "--bind", other, "/etc/machine-id"); err != nil {
		t.Fatalf("this test needs /etc/machine-id: %s", stderr)
	}
	must(t, w.agent.Start(w.ctx))
	must(t, Eventually(w.ctx, func() error { return w.served(alice, target) }))
	text, err := w.agent.StatusText(w.ctx)
	must(t, err)
	if !strings.Contains(text, "node-agent adopt") || !strings.Contains(text, "on another machine") {
		t.Errorf("status does not say what to do:\n%s", text)
	}
	if usage, err := w.core.Usage(w.ctx); err != nil || len(usage) != 0 {
		t.Errorf("Core has usage: %v, %v", usage, err)
	}
	_, err = w.agentDo("adopt")
	must(t, err)
	bob := w.subscriber("bob")
	w.synced()
	must(t, w.served(bob, target))
	w.stopAgent()
	usage, err := w.core.Usage(w.ctx)
	must(t, err)
	all := usage[Account{alice.UserID, protocol.ID}].plus(usage[Account{bob.UserID, protocol.ID}])
	if all != target.Traffic() {
		t.Errorf("Core has %+v, the target counted %+v", all, target.Traffic())
	}
	raw, err := os.ReadFile(w.agent.file("state/node.db"))
	must(t, err)
	if strings.Contains(string(raw), "0123456789abcdef0123456789abcdef") {
		t.Error("the state has the machine-id, which is confidential")
	}
}
