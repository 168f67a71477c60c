package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// clock is the wall clock of the programs that withClock has built. Timers run as always.
type clock struct {
	t       *testing.T
	seconds *int64 // ahead of the test's own clock, in memory that the programs share
}

func (c *clock) now() time.Time {
	return time.Now().Add(time.Duration(atomic.LoadInt64(c.seconds)) * time.Second)
}

// set sets the clock, to a second.
func (c *clock) set(to time.Time) {
	atomic.StoreInt64(c.seconds, to.Unix()-time.Now().Unix())
	c.t.Logf("it is %s", to.Format(time.RFC3339))
}

// add moves the clock on.
func (c *clock) add(d time.Duration) { atomic.AddInt64(c.seconds, int64(d/time.Second)) }

// withClock builds both programs with a wall clock that the test moves, see testdata/clock.go.txt. Only their
// packages main are compiled again, and the programs linked.
func withClock(t *testing.T) (Programs, *clock) {
	t.Helper()
	if runtime.GOARCH != "amd64" || runtime.GOOS != "linux" {
		t.Skipf("NOT RUN on %s/%s: the clock that the test moves (testdata/clock.go.txt) has code for linux/amd64 alone; run it there", runtime.GOOS, runtime.GOARCH)
	}
	stock := programs(t)
	root, err := moduleRoot(t.Context())
	must(t, err)
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for _, command := range []string{"node-agent", "node-core"} {
		overlay.Replace[filepath.Join(root, "cmd", command, "clock.go")] = filepath.Join(root, "internal", "e2e", "testdata", "clock.go.txt")
	}
	list, err := json.Marshal(overlay)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600))
	// The linker keeps programs from variables of the runtime, unless it is told not to.
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags", "-checklinkname=0", "-o", dir+"/", "./cmd/node-agent", "./cmd/node-core")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("build the programs with a clock: %w\n%s", err, out))
	}
	file, err := os.OpenFile(filepath.Join(dir, "clock"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer file.Close()
	must(t, file.Truncate(8))
	shared, err := syscall.Mmap(int(file.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(t, err)
	t.Cleanup(func() { _ = syscall.Munmap(shared) })
	p := programsIn(dir)
	p.Xray = stock.Xray
	return p, &clock{t, (*int64)(unsafe.Pointer(&shared[0]))}
}
