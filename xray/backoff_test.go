package xray_test

import (
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/logkey"
)

// A worker that ends again and again is started at once the first time, and after waits
// that grow then: they are told, and kept.
func TestAWorkerThatDiesAgainWaits(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", bobID))
	for i, want := range []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second} {
		first := r.engine.Status().PID
		sendSignal(t, first, syscall.SIGKILL)
		var next time.Time
		r.within(want+promised, "another worker runs", func() bool {
			s := r.engine.Status()
			next = s.StartedAt
			return s.PID != first && s.State == "running"
		})
		ends := r.log.records(t, "the worker ended; starting it again")
		if len(ends) != i+1 {
			t.Fatalf("%d ends are in the log after %d", len(ends), i+1)
		}
		told, _ := ends[i][logkey.NextIn].(float64)
		if time.Duration(told) != want {
			t.Errorf("after end %d a wait of %s is told, want %s", i+1, time.Duration(told), want)
		}
		at, _ := ends[i]["time"].(string)
		ended, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			t.Fatal(err)
		}
		if waited := next.Sub(ended); waited < want {
			t.Errorf("after end %d the next worker was started within %s, want %s at the least", i+1, waited, want)
		}
	}
	r.dial(bobID)
}
