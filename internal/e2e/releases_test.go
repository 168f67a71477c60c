package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// releasesEnv is an environment variable. It names the folder of the releases of another process, where a
// test runs itself again in a network namespace.
const releasesEnv = "NODE_RELEASES"

// releases has the releases that tests of this process have built, by version and arguments.
var releases struct {
	mu  sync.Mutex
	dir string // the folder that has them all; empty before the first
}

// release builds packages of a version, with more arguments for the command release, and returns
// their folder. A release that another test has built is built once. Nobody may change it.
func release(t *testing.T, version string, args ...string) string {
	t.Helper()
	releases.mu.Lock()
	defer releases.mu.Unlock()
	if releases.dir == "" {
		if releases.dir = os.Getenv(releasesEnv); releases.dir == "" {
			dir, err := os.MkdirTemp("", "node-releases-*")
			must(t, err)
			releases.dir = dir
		}
	}
	// rpm takes a path with brackets for a pattern.
	out := filepath.Join(releases.dir, strings.Join(append([]string{version}, args...), "_"))
	if _, err := os.Stat(filepath.Join(out, "SHA256SUMS")); err == nil {
		return out
	}
	root, err := moduleRoot(t.Context())
	must(t, err)
	build := exec.Command("go", append([]string{
		"run", "./internal/release", "-out", out, "-version", version, "-epoch", "1700000000", "-arch", runtime.GOARCH, "-compression", "gzip",
	}, args...)...)
	build.Dir = root
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build packages: %v\n%s", err, said)
	}
	return out
}

// removeReleases removes what release has built.
func removeReleases() {
	if os.Getenv(releasesEnv) == "" {
		_ = os.RemoveAll(releases.dir)
	}
}
