package xray

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// The stack of a panic that the worker caught is in the log, and in no error's text.
func TestStacksAreLogged(t *testing.T) {
	var log strings.Builder
	e := &Engine{deps: Deps{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	err := fmt.Errorf("check: %w", &fault.Fault{Code: fault.ApplyFailed, Message: "words", Stack: "goroutine 1"})
	e.logStack(state.Operation{Kind: state.OpAddInbound, Tag: "in-1"}, err)
	if !strings.Contains(log.String(), "goroutine 1") || !strings.Contains(log.String(), "in-1") || strings.Contains(err.Error(), "goroutine") {
		t.Errorf("log %q, error %v", log.String(), err)
	}
}
