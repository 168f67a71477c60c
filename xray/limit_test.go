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

// A worker that does not answer hangs where it had the time to: on a host where others want the processors too,
// five seconds are less than that.
func TestAWorkerWithoutProcessorTimeIsAwaited(t *testing.T) {
	for _, c := range []struct {
		waited, used time.Duration
		busy         bool
	}{
		{4 * time.Second, 8 * time.Second, false}, // two processors
		{5 * time.Second, 10 * time.Second, true},
		{5 * time.Second, time.Second, false},
		{25 * time.Second, 4 * time.Second, false},
		{25 * time.Second, 5 * time.Second, true},
	} {
		if busy := isBusy(c.waited, c.used); busy != c.busy {
			t.Errorf("after %s with %s of processor time: %v, want %v", c.waited, c.used, busy, c.busy)
		}
	}
}
