package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// command runs a node-core command and returns its exit code.
func (c *Core) command(ctx context.Context, args ...string) (code int, stdout, stderr string, err error) {
	stdout, stderr, err = output(ctx, c.path, append(args, "--data-dir", c.dir)...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), stdout, stderr, nil
	}
	return 0, stdout, stderr, err
}

// wantExit runs a node-core command that has to end with that code, and returns what it printed
// to standard error and how long it took.
func (w *world) wantExit(code int, args ...string) (stderr string, took time.Duration) {
	w.t.Helper()
	start := time.Now()
	got, stdout, stderr, err := w.core.command(w.ctx, args...)
	must(w.t, err)
	if got != code {
		w.t.Fatalf("node-core %v ended with %d, want %d:\n%s%s", args, got, code, stdout, stderr)
	}
	return stderr, time.Since(start)
}

// --wait returns when the nodes that a change concerns run it: the change is then in force. It
// says which nodes refuse it or are away, and ends with 4. A change of another node, and a part
// that was refused before, hold nothing up.
func TestWaitForAChange(t *testing.T) {
	w := newWorld(t)
	good := w.protocol()
	w.start()
	alice, bob := w.subscriber("alice"), w.subscriber("bob")
	w.synced()
	target := w.target()
	ofAlice, ofBob := w.dial(w.linkClient(alice.Links[0]), target), w.dial(w.linkClient(bob.Links[0]), target)
	must(t, Exchange(ofBob, 10, 10))
	must(t, Exchange(ofAlice, 10, 10))
	add := func(node string, more ...string) []string {
		port, err := FreePort()
		must(t, err)
		return append([]string{"protocol", "add", "--node", node, "--protocol", "vless", "--listen", "127.0.0.1", "--port", strconv.Itoa(port)}, more...)
	}

	// A change that the node runs.
	if stderr, _ := w.wantExit(0, add("node", "--tag", "second-2", "--wait")...); stderr != "" {
		t.Errorf("it printed %q", stderr)
	}
	w.synced()

	// One that it refuses: the part is named, and the command does not wait for its time.
	missing := filepath.Join(w.dir, "missing.pem")
	stderr, took := w.wantExit(4, add("node", "--tag", "refused-3", "--security", "tls", "--cert", missing, "--key", missing, "--wait=1m")...)
	for _, want := range []string{`node node refuses the change: inbound "refused-3" since 20`, "tries again by itself", missing, "the change is stored, and 1 of 1 nodes do not run it: node"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("it printed %q, want %q in it", stderr, want)
		}
	}
	if took > 45*time.Second {
		t.Errorf("it took %s over a node that has answered", took)
	}

	// A removal that the node runs, though it goes on refusing the other part.
	stderr, _ = w.wantExit(0, "subscription", "disable", fmt.Sprint(alice.ID), "--wait=1m")
	if !strings.Contains(stderr, `node node refuses inbound "refused-3" since 20`) {
		t.Errorf("it printed %q, want the part that is refused", stderr)
	}
	select {
	case err := <-awaitEnd(ofAlice):
		t.Logf("the connection of the disabled subscription has ended: %v", err)
	case <-time.After(3 * time.Second):
		t.Error("the command ended with 0, and the disabled subscription is served")
	}
	must(t, Exchange(ofBob, 10, 10))
	if stderr, _ = w.wantExit(0, "subscription", "enable", fmt.Sprint(alice.ID)); !strings.Contains(stderr, `refuses inbound "refused-3" since 20`) {
		t.Errorf("without --wait it printed %q, want the part that is refused", stderr)
	}

	// A node that is away, and a change that does not concern it.
	_, err := w.core.AddNode(w.ctx, "away")
	must(t, err)
	stderr, took = w.wantExit(4, add("away", "--wait=1s")...)
	if !strings.Contains(stderr, "node away has not taken the change: it is not registered yet") || took < time.Second || took > 20*time.Second {
		t.Errorf("after %s it printed %q", took, stderr)
	}
	w.wantExit(0, "protocol", "remove", fmt.Sprint(good.ID), "--wait=1m")

	w.agent.Kill()
	stderr, took = w.wantExit(4, "subscription", "disable", fmt.Sprint(bob.ID), "--wait=1s")
	if !strings.Contains(stderr, "node node has not taken the change within 1s; it was last heard of at 20") || took > 20*time.Second {
		t.Errorf("after %s it printed %q", took, stderr)
	}
}
