package e2e

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A worker without a descriptor to spare can't accept clients. That is told to Core and
// shown in status, and not only in the log.
func TestExhaustedDescriptorsAreTold(t *testing.T) {
	w := newScriptedWorld(t, quickConfig)
	port, err := FreePort()
	must(t, err)
	w.serveSole(port, nil)
	before, err := w.agent.Status(w.ctx)
	must(t, err)
	worker := before.Engines.Xray.PID
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", worker))
	must(t, err)
	const spare = 8
	few := unix.Rlimit{Cur: uint64(len(open) + spare), Max: uint64(len(open) + spare)}
	must(t, unix.Prlimit(worker, unix.RLIMIT_NOFILE, &few, nil))
	for range 2 * spare {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		must(t, err)
		defer conn.Close()
	}
	const words = "the xray worker has no file descriptor left"
	must(t, Eventually(w.ctx, func() error {
		text, err := w.agent.StatusText(w.ctx)
		if err != nil {
			return err
		}
		if !strings.Contains(text, words) || !strings.Contains(text, "LimitNOFILE") {
			return fmt.Errorf("status says\n%s", text)
		}
		w.scripted.mu.Lock()
		defer w.scripted.mu.Unlock()
		if told := strings.Join(w.scripted.failures, "\n"); strings.Count(told, words) != 1 {
			return fmt.Errorf("Core was told %q", told)
		}
		return nil
	}))
}
