package xray_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nodeagent/internal/testfiles"
)

// A worker that is to take over fails at each of its operations in turn: it ends then,
// with what it listens on, and the one before goes on as if nothing had been.
func TestAFailedTakeoverLeavesOneWorker(t *testing.T) {
	r := newRig(t)
	second := freePort(t)
	state := func(observatory string) string {
		inbound := `{"tag":"in-%d","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":"` + bobID + `"}]}}`
		return fmt.Sprintf(`{"inbounds":[`+inbound+`,`+inbound+`],"outbounds":[{"tag":"direct","protocol":"freedom"}]%s}`, 1, r.port, 2, second, observatory)
	}
	r.native(state(""))
	first, bob := r.engine.Status().PID, r.dial(bobID)
	failures := 0
	for ; ; failures++ {
		testfiles.Replace(t, filepath.Join(r.assets, "fail"), fmt.Appendf(nil, "takeover-%d %d", failures, failures+1))
		err := r.engine.Apply(t.Context(), r.parsed(state(observed)))
		if err == nil {
			break // it has fewer operations
		}
		if !strings.Contains(err.Error(), failedByTest) {
			t.Fatalf("operation %d: got %v", failures+1, err)
		}
		if s, left := r.engine.Status(), children(t, os.Getpid()); s.PID != first || s.Draining != 0 || s.Restarts != 0 || len(left) != 1 {
			t.Errorf("operation %d: %d processes, status %+v; want the worker %d alone", failures+1, len(left), s, first)
		}
		if err := use(bob); err != nil {
			t.Errorf("operation %d: bob's connection: %v", failures+1, err)
		}
		for _, port := range []int{r.port, second} {
			if _, err := r.tryDialPort(bobID, port); err != nil {
				t.Errorf("operation %d: a new connection to port %d: %v", failures+1, port, err)
			}
		}
	}
	if failures < 3 { // an outbound and the two inbounds
		t.Errorf("%d operations failed, too few to prove much", failures)
	}
	if s := r.engine.Status(); s.PID == first || s.Draining != 1 {
		t.Errorf("status %+v, want another worker than %d", s, first)
	}
}
