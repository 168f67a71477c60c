// Package namespace runs a test in a new network namespace and a new mount namespace. The
// test has only the loopback interface there, and may change settings of the network and
// mount file systems without an effect on the host.
package namespace

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// inside is an environment variable. It names the test that already runs in a namespace.
const inside = "NODE_AGENT_TEST_NAMESPACE"

// Inside returns true where the test runs in a namespace. Otherwise it runs the same test
// again in a new namespace, after the shell commands of setup, with the loopback interface
// up and more environment variables (NAME=value). It then fails the test if the second run failed,
// skips it if that run skipped it, and returns false: the caller returns at once. Where no namespace
// can be made, Inside skips the test and says why.
func Inside(t *testing.T, setup string, variables ...string) bool {
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
	again.Env = append(append(os.Environ(), variables...), inside+"="+t.Name())
	out, err := again.CombinedOutput()
	if err != nil {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP: "+t.Name()+" (")) {
		t.Skipf("in a network namespace:\n%s", out)
	}
	t.Logf("%s", out)
	return false
}

// Parallel is t.Parallel for a test that calls Inside: its second run shares neither variables nor ports
// with other tests. In the second run Parallel does nothing, so that the test may set environment
// variables there.
func Parallel(t *testing.T) {
	t.Helper()
	if os.Getenv(inside) != t.Name() {
		t.Parallel()
	}
}

// Beside is Inside for a test that may run at the same time as other tests: it waits more than it
// computes.
func Beside(t *testing.T, setup string, variables ...string) bool {
	t.Helper()
	Parallel(t)
	return Inside(t, setup, variables...)
}
