package telemt

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var (
	buildDouble sync.Once
	doubleBuilt string
	errDouble   error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if doubleBuilt != "" {
		_ = os.RemoveAll(filepath.Dir(doubleBuilt))
	}
	os.Exit(code)
}

// double builds the stand-in for telemt once, copies it to a new folder, and returns the
// copy's path. faults are described in internal/telemtdouble.
func double(t *testing.T, faults ...string) string {
	t.Helper()
	buildDouble.Do(func() {
		dir, err := os.MkdirTemp("", "telemt-double-*")
		if err != nil {
			errDouble = err
			return
		}
		doubleBuilt = filepath.Join(dir, "telemt")
		build := exec.Command("go", "build", "-o", doubleBuilt, "nodeagent/internal/telemtdouble")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as other tests compile its packages
		out, err := build.CombinedOutput()
		if err != nil {
			errDouble = fmt.Errorf("build the double: %w\n%s", err, out)
		}
	})
	if errDouble != nil {
		t.Fatal(errDouble)
	}
	path := filepath.Join(t.TempDir(), "telemt")
	install(t, path, faults...)
	return path
}

// install replaces the program at the path with the double in one step, as a package
// upgrade does.
func install(t *testing.T, path string, faults ...string) {
	t.Helper()
	program, err := os.ReadFile(doubleBuilt)
	if err != nil {
		t.Fatal(err)
	}
	write := func(to string, data []byte) {
		if err := os.WriteFile(to+".new", data, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(to+".new", to); err != nil {
			t.Fatal(err)
		}
	}
	write(path+".faults", []byte(strings.Join(faults, "\n")+"\n"))
	write(path, program)
}

// onEach runs a test with the double, and with the real telemt if there is one.
func onEach(t *testing.T, test func(t *testing.T, binary string)) {
	t.Helper()
	t.Run("double", func(t *testing.T) { test(t, double(t)) })
	t.Run("real", func(t *testing.T) {
		binary := os.Getenv("TELEMT_BIN")
		if binary == "" {
			t.Skip("NOT RUN: the real telemt is not here; build it (cargo build --release in its repository) and name it in TELEMT_BIN")
		}
		test(t, binary)
	})
}
