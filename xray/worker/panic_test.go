package worker

import (
	"strings"
	"testing"

	"nodeagent/xray/state"
)

// Of a panic over an operation, Core is told its words in one line; the stack goes
// another way.
func TestPanicsAreToldInOneLine(t *testing.T) {
	failure := (&executor{}).do(&state.Operation{Kind: state.OpPutOutbound, Tag: "out", Outbound: &state.Outbound{Tag: "out"}})
	if failure == nil || !strings.Contains(failure.Message, "panic in xray-core: runtime error") || strings.Contains(failure.Message, "\n") {
		t.Fatalf("got %v", failure)
	}
	if !strings.Contains(failure.Stack, "goroutine") || !strings.Contains(failure.Stack, "putOutbound") {
		t.Errorf("stack %q", failure.Stack)
	}
}
