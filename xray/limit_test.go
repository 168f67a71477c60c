package xray

import (
	"testing"
	"time"

	"nodeagent/xray/state"
)

// An operation with many clients may take longer than one with few.
func TestOperationLimit(t *testing.T) {
	few := operationLimit(state.Operation{Users: make([]state.Client, 1)})
	many := operationLimit(state.Operation{Users: make([]state.Client, 100_000)})
	if few < opTimeout || many < 3*few {
		t.Errorf("one client has %s, a hundred thousand have %s", few, many)
	}
}

// A silent worker hangs where it had the time to answer: on a host where others want the processors too,
// five seconds are less than that, and so is a small part of many processors.
func TestAWorkerWithoutProcessorTimeIsAwaited(t *testing.T) {
	for _, c := range []struct {
		waited, used time.Duration
		processors   int
		busy         bool
	}{
		{4 * time.Second, 8 * time.Second, 2, false},
		{5 * time.Second, 10 * time.Second, 2, true},
		{5 * time.Second, time.Second, 1, false},
		{25 * time.Second, 4 * time.Second, 1, false},
		{25 * time.Second, 5 * time.Second, 1, true},
		{5 * time.Second, 5 * time.Second, 16, false},
		{20 * time.Second, 80 * time.Second, 16, true},
	} {
		began := time.Now()
		s := silence{began, time.Hour}
		if busy := s.tooLong(began.Add(c.waited), time.Hour+c.used, false, c.processors); busy != c.busy {
			t.Errorf("after %s with %s of processor time of %d processors: %v, want %v", c.waited, c.used, c.processors, busy, c.busy)
		}
	}
}

// A worker that sends other messages is not ended: its silence begins anew with each of them.
func TestAWorkerThatTalksIsAwaited(t *testing.T) {
	const processors = 2
	now := time.Now()
	s := silence{began: now}
	look := func(elapsed time.Duration, talks, want bool) {
		t.Helper()
		now = now.Add(elapsed)
		used := processors * now.Sub(s.began)
		if busy := s.tooLong(now, s.used+used, talks, processors); busy != want {
			t.Errorf("of a worker that talks (%v) after %s it is said that it hangs: %v", talks, elapsed, busy)
		}
	}
	for range 10 {
		look(4*time.Second, true, false)
		look(4*time.Second, false, false)
	}
	look(time.Second, false, true)
}
