package xray

import (
	"testing"

	"nodeagent/internal/supervise"
)

// A worker that answers no ping hangs only where it has a processor to spare: not where its clients
// use all processors, nor where it waits for a disk.
func TestCouldAnswer(t *testing.T) {
	const processors = 2
	for name, c := range map[string]struct {
		activity supervise.Activity
		want     bool
	}{
		"stands still":              {supervise.Activity{Asleep: 9}, true},
		"spins on one processor":    {supervise.Activity{Asleep: 8, Running: 1}, true},
		"has a crowd":               {supervise.Activity{Asleep: 7, Running: 2}, false},
		"has one, and calls to end": {supervise.Activity{Asleep: 5, Running: 4}, false},
		"is in swap":                {supervise.Activity{Asleep: 8, Held: 1}, false},
	} {
		if got := couldAnswer(c.activity, processors); got != c.want {
			t.Errorf("of one that %s (%+v) it is said %v", name, c.activity, got)
		}
	}
}
