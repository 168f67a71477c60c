package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// rpmRoot is a file system with packages of rpm in it. No systemd runs there, and /proc is not
// mounted, as while an image of a machine is built.
type rpmRoot struct {
	t    *testing.T
	root string
}

// try runs rpm on the root, and returns what it and the scripts of packages said.
func (r rpmRoot) try(args ...string) (string, error) {
	// The database's place in Debian's rpm is the home folder.
	out, err := exec.Command("rpm", append([]string{"--root", r.root, "--dbpath", "/var/lib/rpm"}, args...)...).CombinedOutput()
	return string(out), err
}

// run is try, and ends the test where rpm fails, or warns that a script has failed.
func (r rpmRoot) run(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil || strings.Contains(out, "scriptlet failed") {
		r.t.Fatalf("rpm %q: %v\n%s", args, err, out)
	}
	return out
}

// left returns the paths below the root that have one of the names in them, apart from rpm's own.
func (r rpmRoot) left(names ...string) []string {
	r.t.Helper()
	var all []string
	must(r.t, filepath.WalkDir(r.root, func(path string, _ os.DirEntry, err error) error {
		for _, name := range names {
			if strings.Contains(filepath.Base(path), name) {
				all = append(all, strings.TrimPrefix(path, r.root))
			}
		}
		return err
	}))
	return all
}

// The rpm packages are installed, upgraded and removed in a file system of their own. A removal
// keeps the state and a configuration that was edited, and leaves no file or folder besides.
func TestRPM(t *testing.T) {
	t.Parallel()
	base := needDebian(t)
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Skip("NOT RUN: rpm is not installed (apt-get install rpm)")
	}
	r := rpmRoot{t, filepath.Join(t.TempDir(), "root")}
	copyDebian(t, base, r.root)
	one := release(t, "1.0.0")
	two := release(t, "1.1.0", "-kinds", "rpm", "-programs", "node-core")
	for program, words := range map[string]string{"node-agent": "node-agent register TOKEN", "node-core": "systemctl enable --now node-core"} {
		file := filepath.Join(one, fmt.Sprintf("%s_1.0.0_%s.rpm", program, runtime.GOARCH))
		if scripts := r.run("-qp", "--scripts", file); strings.Count(scripts, "scriptlet (using /bin/sh)") != 3 {
			t.Errorf("the scripts of %s are\n%s", program, scripts)
		}
		if said := r.run("-i", file); !strings.Contains(said, words) {
			t.Errorf("the installation of %s does not say %q:\n%s", program, words, said)
		}
		if changed, err := r.try("-V", program); err != nil {
			t.Errorf("rpm verifies that of %s there differs\n%s", program, changed)
		}
		if out, err := exec.Command("chroot", r.root, "stat", "-c", "%U %a", "/var/lib/"+program).CombinedOutput(); string(out) != program+" 700\n" {
			t.Errorf("the state folder of %s: %v %s", program, err, out)
		}
		if out, err := exec.Command("chroot", r.root, program, "--help").CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", program, err, out)
		}
	}

	environment := filepath.Join(r.root, "etc/node-core/environment")
	must(t, os.WriteFile(environment, []byte("NODE_CORE_OPTIONS=--listen 127.0.0.1:1\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(r.root, "var/lib/node-core/core.db"), []byte("the state"), 0o600))
	if said := r.run("-U", filepath.Join(two, fmt.Sprintf("node-core_1.1.0_%s.rpm", runtime.GOARCH))); !strings.Contains(said, "has its state from before") {
		t.Errorf("the upgrade says\n%s", said)
	}
	if out, _ := exec.Command("chroot", r.root, "node-core", "--version").CombinedOutput(); !strings.Contains(string(out), "1.1.0") {
		t.Errorf("after the upgrade there is %s", out)
	}
	if kept, err := os.ReadFile(environment); err != nil || !strings.Contains(string(kept), "127.0.0.1:1") {
		t.Errorf("after the upgrade the configuration is %q: %v", kept, err)
	}

	r.run("-e", "node-agent", "node-core")
	want := "/etc/node-core /etc/node-core/environment.rpmsave /var/lib/node-agent /var/lib/node-core"
	left := r.left("node-agent", "node-core", "environment.rpmsave")
	if strings.Join(left, " ") != want {
		t.Errorf("after the removal there are\n\t%q, want\n\t%q", left, want)
	}
}
