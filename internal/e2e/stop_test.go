package e2e

import (
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A daemon under a Core that hangs stops without waiting for it: what Core did not take is on
// the disk. The bound is generous; the time that the stop took is logged, and how long of it
// the inbound's port was closed. It runs alone, since it measures.
func TestStopUnderAHungCore(t *testing.T) {
	w := newWorld(t)
	p := w.protocol()
	w.start()
	must(t, w.core.cmd.Process.Signal(syscall.SIGSTOP))
	t.Cleanup(func() { _ = w.core.cmd.Process.Signal(syscall.SIGCONT) })

	closed := make(chan time.Time, 1)
	began := time.Now()
	go func() {
		for {
			conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)))
			if err != nil {
				closed <- time.Now()
				return
			}
			_ = conn.Close()
			time.Sleep(time.Millisecond) // so that the stop has the processor
		}
	}()
	w.stopAgent()
	took := time.Since(began)
	t.Logf("the stop took %s, with closed ports %s", took, time.Since(<-closed))
	if took > 3*time.Second {
		t.Errorf("the stop took %s", took)
	}
}
