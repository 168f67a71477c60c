package supervise

import (
	"syscall"
	"testing"
	"time"
)

func TestIdle(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		signal syscall.Signal
		idle   bool
	}{
		"sleeps":            {"echo ready; exec sleep 60", 0, true},
		"works":             {"echo ready; while :; do :; done", 0, false},
		"works, is stopped": {"echo ready; while :; do :; done", syscall.SIGSTOP, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, got := shell(t, c.script)
			got.wait(t, 1)
			if c.signal != 0 {
				if err := syscall.Kill(p.PID(), c.signal); err != nil {
					t.Fatal(err)
				}
			}
			for range 100 {
				idle, err := p.Idle()
				if err != nil {
					t.Fatal(err)
				}
				if idle && !c.idle {
					t.Fatal("a process that works is told to be idle")
				}
			}
			for deadline := time.Now().Add(5 * time.Second); c.idle; time.Sleep(time.Millisecond) {
				if idle, err := p.Idle(); err != nil {
					t.Fatal(err)
				} else if idle {
					return
				}
				if time.Now().After(deadline) {
					t.Fatal("a process at rest is never told to be idle")
				}
			}
		})
	}
}
