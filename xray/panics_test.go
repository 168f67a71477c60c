package xray_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"nodeagent/internal/testfiles"
	"nodeagent/xray"
)

// Of a panic over an operation, Core is told its words alone.
func TestPanicsReachTheDaemonWithoutTheirStack(t *testing.T) {
	r := newRig(t)
	err := r.engine.Apply(t.Context(), r.state(`,"outbounds":[{"tag":"out","protocol":"http","settings":{"servers":[{"port":1}]}}]`, bobID))
	if err == nil || !strings.Contains(err.Error(), `put_outbound "out": panic in xray-core`) || strings.Contains(err.Error(), "goroutine") {
		t.Errorf("got %v", err)
	}
}

// A worker that ends over a change is told in one sentence, which says it once.
func TestAWorkersEndIsSaidOnce(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", aliceID))
	testfiles.Replace(t, filepath.Join(r.assets, "fail"), []byte(dies))
	err := r.engine.Apply(t.Context(), r.state(`,"outbounds":[{"tag":"one","protocol":"freedom"},{"tag":"two","protocol":"freedom"}]`, bobID))
	if !errors.Is(err, xray.ErrFatalChange) || strings.Count(err.Error(), "ended") != 1 || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}
