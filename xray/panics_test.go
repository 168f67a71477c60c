package xray_test

import (
	"strings"
	"testing"
)

// Of a panic over an operation, Core is told its words alone.
func TestPanicsReachTheDaemonWithoutTheirStack(t *testing.T) {
	r := newRig(t)
	err := r.engine.Apply(t.Context(), r.state(`,"outbounds":[{"tag":"out","protocol":"http","settings":{"servers":[{"port":1}]}}]`, bobID))
	if err == nil || !strings.Contains(err.Error(), `put_outbound "out": panic in xray-core`) || strings.Contains(err.Error(), "goroutine") {
		t.Errorf("got %v", err)
	}
}
