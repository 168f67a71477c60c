package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// release builds packages of the sources in dir, and returns the folder with them.
func release(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out := t.TempDir()
	t.Chdir(dir)
	args = append([]string{"-out", out, "-version", "1.2.3", "-epoch", "1700000000", "-arch", runtime.GOARCH}, args...)
	if err := run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	return out
}

// copySources copies the checkout to another folder, as another machine has it in another place.
func copySources(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "elsewhere")
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = "../.."
	names, err := list.Output()
	if err != nil {
		t.Fatalf("list the sources: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join("../..", name))
		if os.IsNotExist(err) { // removed, and not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Two builds, from two folders, have the same bytes.
func TestPackagesAreReproducible(t *testing.T) {
	elsewhere := copySources(t)
	here, there := release(t, "../.."), release(t, elsewhere)
	entries, err := os.ReadDir(here)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
		one, err := os.ReadFile(filepath.Join(here, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		other, err := os.ReadFile(filepath.Join(there, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, other) {
			t.Errorf("%s: two builds differ", entry.Name())
		}
	}
	for _, program := range []string{"node-agent", "node-core"} {
		for _, packager := range []string{"deb", "rpm"} {
			if name := packageName(program, "1.2.3", runtime.GOARCH, packager); !slices.Contains(names, name) {
				t.Errorf("there is no %s; there are %q", name, names)
			}
		}
		checkDeb(t, program, filepath.Join(here, packageName(program, "1.2.3", runtime.GOARCH, "deb")))
	}
	checkSums := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	checkSums.Dir = here
	if out, err := checkSums.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}

// checkDeb unpacks a package and looks at what is in it.
func checkDeb(t *testing.T, program, deb string) {
	dpkg, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Logf("NOT CHECKED: the contents of %s; dpkg-deb is not installed", filepath.Base(deb))
		return
	}
	dir := t.TempDir()
	if out, err := exec.Command(dpkg, "-x", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", deb, err, out)
	}
	config := map[string]string{"node-agent": "etc/node-agent/config.toml", "node-core": "etc/node-core/environment"}[program]
	doc := "usr/share/doc/" + program
	for _, name := range []string{
		"usr/lib/systemd/system/" + program + ".service", "usr/lib/sysusers.d/" + program + ".conf", "usr/lib/tmpfiles.d/" + program + ".conf",
		config, doc + "/copyright", doc + "/sbom.cdx.json", doc + "/licenses/std/LICENSE", doc + "/licenses/github.com/spf13/cobra/LICENSE.txt",
		"usr/share/man/man1/" + program + ".1.gz", "usr/share/bash-completion/completions/" + program,
		"usr/share/zsh/vendor-completions/_" + program, "usr/share/fish/vendor_completions.d/" + program + ".fish",
	} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %s is missing or empty: %v", program, name, err)
		}
	}
	binary := filepath.Join(dir, "usr/bin", program)
	checkStatic(t, binary)
	version := map[string]string{"node-agent": "version", "node-core": "--version"}[program]
	if out, err := exec.Command(binary, version).CombinedOutput(); err != nil || !strings.Contains(string(out), "1.2.3") {
		t.Errorf("%s %s: %v\n%s", program, version, err, out)
	}
	var bom struct{ Components []struct{ Name string } }
	data, err := os.ReadFile(filepath.Join(dir, doc, "sbom.cdx.json"))
	if err == nil {
		err = json.Unmarshal(data, &bom)
	}
	if err != nil || len(bom.Components) < 10 {
		t.Errorf("%s: the list of modules has %d: %v", program, len(bom.Components), err)
	}
	for _, c := range bom.Components {
		if _, err := os.Stat(filepath.Join(dir, doc, "licenses", c.Name)); err != nil {
			t.Errorf("%s: module %s has no licence text: %v", program, c.Name, err)
		}
	}
}

// checkStatic checks that a program needs no libraries, and has no symbols.
func checkStatic(t *testing.T, path string) {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Errorf("%s is not static", filepath.Base(path))
		}
	}
	if symbols, err := file.Symbols(); err == nil {
		t.Errorf("%s has %d symbols", filepath.Base(path), len(symbols))
	}
}

// The scripts of the packages are for any POSIX shell.
func TestScriptsAreShell(t *testing.T) {
	all, err := filepath.Glob("../../packaging/scripts/*.sh")
	if err != nil || len(all) == 0 {
		t.Fatalf("find the scripts: %v", err)
	}
	for _, script := range append(all, "../../packaging/version.sh", "../../packaging/source.sh", "../../packaging/install.sh") {
		if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

// A module whose licence is not found ends the build.
func TestModuleWithoutALicence(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"NOTICE", "license.go", "licensing.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if texts, err := licencesIn(dir); err == nil {
		t.Errorf("%q were taken for a licence", texts)
	}
	for _, name := range []string{"LICENSE", "COPYING", "Licence.md", "LICENSE-MIT"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := licencesIn(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		os.Remove(filepath.Join(dir, name))
	}
}
