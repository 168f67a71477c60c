package e2e

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"testing"
)

// `make build` makes static programs: they need no loader and no library, so they run on any
// Linux with any libc.
func TestProgramsAreStatic(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("NOT RUN: make is not here; install it (Debian: make)")
	}
	root, err := moduleRoot(t.Context())
	must(t, err)
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "make", "-C", root, "build", "BIN="+dir)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	for _, name := range []string{"node-agent", "node-core"} {
		program, err := elf.Open(filepath.Join(dir, name))
		must(t, err)
		defer program.Close()
		for _, segment := range program.Progs {
			if segment.Type == elf.PT_INTERP {
				t.Errorf("%s has PT_INTERP: it is loaded by a dynamic loader", name)
			}
		}
		libraries, err := program.ImportedLibraries() // DT_NEEDED; none where the file has no dynamic section
		must(t, err)
		if len(libraries) > 0 {
			t.Errorf("%s needs the libraries %v", name, libraries)
		}
	}
}
