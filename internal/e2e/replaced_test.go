package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The file of the program is replaced while the daemon runs, as an upgrade does before the
// restart. A worker that ends is started again from the daemon's own file.
func TestWorkerIsOfTheDaemonsOwnBuild(t *testing.T) {
	w := newWorld(t)
	own := filepath.Join(w.dir, "node-agent")
	raw, err := os.ReadFile(w.progs.Agent)
	must(t, err)
	must(t, os.WriteFile(own, raw, 0o755))
	w.protocol()
	w.agent.path = own
	w.start()
	w.agent.path = w.progs.Agent // the commands of this test
	before, err := w.agent.Status(w.ctx)
	must(t, err)
	must(t, os.Remove(own))
	must(t, os.WriteFile(own, []byte("#!/bin/sh\nexit 7\n"), 0o755))
	must(t, syscall.Kill(before.Engines.Xray.PID, syscall.SIGKILL))
	pid := 0
	must(t, Eventually(w.ctx, func() error {
		now, err := w.agent.Status(w.ctx)
		if err == nil && (now.Engines.Xray.PID == before.Engines.Xray.PID || now.Engines.Xray.State != "running") {
			err = fmt.Errorf("the worker is %s", now.Engines.Xray.State)
		}
		pid = now.Engines.Xray.PID
		return err
	}))
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	must(t, err)
	if exe != own+" (deleted)" {
		t.Errorf("the worker was started from %s, want the removed file %s", exe, own)
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	must(t, err)
	if name := strings.TrimSpace(string(comm)); name != "node-agent" {
		t.Errorf("the worker's process is called %q", name)
	}
}
