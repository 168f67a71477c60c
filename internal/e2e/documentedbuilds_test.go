package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// commandsOfBuilds are the blocks that are run in the sources, on a host with Go.
var commandsOfBuilds = []string{
	"README.md: make demo",
	"README.md: make packages",
	"docs/install.md: minisign -G -p release.pub -s release.key",
	"docs/install.md: make build",
}

// The commands that documents give for the sources run in a clone of this repository. Packages are built for
// this machine's architecture alone, and of the kind that takes the least time.
func TestDocumentedBuilds(t *testing.T) {
	t.Parallel()
	root, err := moduleRoot(t.Context())
	must(t, err)
	for tool, from := range map[string]string{"git": "git", "make": "make", "minisign": "minisign"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is not installed (apt-get install %s)", tool, from)
		}
	}
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("NOT RUN: this is no git checkout, and make source needs one")
	}
	sources := filepath.Join(t.TempDir(), "sources")
	if out, err := exec.Command("git", "clone", "-q", "file://"+root, sources).CombinedOutput(); err != nil {
		t.Fatalf("clone the repository: %v\n%s", err, out)
	}
	// minisign asks for a password, and reads more of its standard input than that: each call gets one.
	bin := t.TempDir()
	minisign, err := exec.LookPath("minisign")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bin, "minisign"), []byte("#!/bin/sh\nprintf 'password\\npassword\\n' | exec "+minisign+" \"$@\"\n"), 0o755))
	shell := func(dir, script string, env ...string) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), append(env, "ARCHES="+runtime.GOARCH, "KINDS=rootfs", "PATH="+bin+":"+os.Getenv("PATH"))...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	w := newWalk(t, func(script string) string { return shell(sources, script) })
	if said := w.step("README.md: make demo"); !strings.Contains(said, "the bytes agree") {
		t.Errorf("the demo says\n%s", said)
	}
	w.step("README.md: make packages")
	shell(sources, "test -f dist/install.sh && ls dist/node-agent_*.rootfs.tar.gz dist/node-core_*.rootfs.tar.gz")
	w.step("docs/install.md: minisign -G -p release.pub -s release.key")
	shell(sources, `minisign -V -m dist/SHA256SUMS -p release.pub
		cd dist && sha256sum --check --quiet SHA256SUMS && grep -q "release_url='https://releases.example/1.2.3'" install.sh`)
	// The source archive has every package, and builds without a network. To build it takes minutes, so
	// that the test looks for the packages alone.
	archive := t.TempDir()
	shell(archive, "tar xzf "+sources+"/dist/node-agent-*-source.tar.gz && cd node-agent-* && go list -deps ./cmd/... >packages && test -s packages && packaging/version.sh", "GOPROXY=off", "GOFLAGS=-mod=vendor")
	w.step("docs/install.md: make build")
	shell(sources, "bin/node-agent version && bin/node-core --version")
	w.all(commandsOfBuilds)
}
