package supervise

import (
	"syscall"
	"testing"
	"time"
)

// rests, spins and talks are what a process may do between two looks.
func rests(_, after Activity) bool { return after.Asleep }

func spins(before, after Activity) bool {
	return !after.Asleep && after.User > before.User && after.Calls == before.Calls
}

func talks(before, after Activity) bool {
	return after.Calls > before.Calls && after.System > before.System
}

func TestActivity(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		signal syscall.Signal
		does   func(before, after Activity) bool
		never  func(before, after Activity) bool
	}{
		"sleeps":            {"echo ready; exec sleep 60", 0, rests, talks},
		"spins":             {"echo ready; while :; do :; done", 0, spins, rests},
		"spins, is stopped": {"echo ready; while :; do :; done", syscall.SIGSTOP, rests, talks},
		"talks":             {"echo ready; exec cat /dev/zero >/dev/null", 0, talks, rests},
	} {
		t.Run(name, func(t *testing.T) {
			p, got := shell(t, c.script)
			got.wait(t, 1)
			if c.signal != 0 {
				if err := syscall.Kill(p.PID(), c.signal); err != nil {
					t.Fatal(err)
				}
			}
			look := func() Activity {
				a, err := p.Activity()
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			seen := false
			for before, deadline := look(), time.Now().Add(5*time.Second); !seen; {
				time.Sleep(50 * time.Millisecond) // what the activity is of
				after := look()
				if c.never(before, after) {
					t.Fatalf("between %+v and %+v it is told to do what it does not", before, after)
				}
				seen, before = c.does(before, after), after
				if time.Now().After(deadline) {
					t.Fatal("what it does is never told")
				}
			}
		})
	}
}
