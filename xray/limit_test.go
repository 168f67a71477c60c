package xray

import (
	"testing"

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
