// Package namespace runs a test in namespaces of its own for the network and for
// mounts, where it has loopback alone and may set and mount what it likes.
package namespace

import (
	"os"
	"os/exec"
	"testing"
)

// inside marks the second run.
const inside = "NODE_AGENT_TEST_NAMESPACE"

// Inside returns true in a namespace of the test's own. Outside it runs the test
// again in one, after the setup (shell commands, loopback being up), hands on how
// that went, and returns false: the caller then has nothing left to do. Where no
// namespace can be made the test is skipped, loudly.
func Inside(t *testing.T, setup string) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	for _, tool := range []string{"unshare", "ip"} {
		if _, err := exec.LookPath(tool); err != nil || os.Getuid() != 0 {
			t.Skipf("NOT RUN: a network namespace needs root, unshare (Debian: util-linux) and ip (Debian: iproute2): %s: %v", tool, err)
		}
	}
	again := exec.Command("unshare", "-n", "-m", "sh", "-c", `ip link set lo up && `+setup+` && exec "$0" -test.run "^$1\$" -test.v`, os.Args[0], t.Name())
	again.Env = append(os.Environ(), inside+"="+t.Name())
	out, err := again.CombinedOutput()
	if err != nil {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}
