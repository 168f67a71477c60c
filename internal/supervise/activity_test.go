package supervise

import (
	"syscall"
	"testing"
	"time"
)

func TestActivity(t *testing.T) {
	rests := func(a Activity) bool { return a == Activity{Asleep: 1} }
	runs := func(a Activity) bool { return a == Activity{Running: 1} }
	for name, c := range map[string]struct {
		script string
		signal syscall.Signal
		does   func(Activity) bool
		never  func(Activity) bool
	}{
		"sleeps":            {"echo ready; exec sleep 60", 0, rests, nil},
		"works":             {"echo ready; while :; do :; done", 0, runs, rests},
		"works, is stopped": {"echo ready; while :; do :; done", syscall.SIGSTOP, rests, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p, got := shell(t, c.script)
			got.wait(t, 1)
			if c.signal != 0 {
				if err := syscall.Kill(p.PID(), c.signal); err != nil {
					t.Fatal(err)
				}
			}
			for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
				now, err := p.Activity()
				if err != nil {
					t.Fatal(err)
				}
				if c.does(now) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("its activity is %+v", now)
				}
			}
			for range 100 {
				if now, err := p.Activity(); err != nil {
					t.Fatal(err)
				} else if c.never != nil && c.never(now) {
					t.Fatalf("Activity says %+v, which the process never does", now)
				}
			}
		})
	}
}
