package namespace

import (
	"os"
	"testing"
)

// A test that is skipped in its namespace counts as skipped, and one that is not skipped counts as run.
func TestSkipsAreSeen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT RUN: a network namespace needs root: run the tests as root")
	}
	for name, skips := range map[string]bool{"skipped": true, "run": false} {
		var seen *testing.T
		t.Run(name, func(t *testing.T) {
			seen = t
			if !Inside(t, "true") {
				return
			}
			if skips {
				t.Skip("as if a tool were missing")
			}
			t.Run("part", func(t *testing.T) { t.Skip("a part alone") })
		})
		if seen != nil && seen.Skipped() != skips {
			t.Errorf("%s: skipped is %t", name, seen.Skipped())
		}
	}
}
