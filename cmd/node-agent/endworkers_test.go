package main

import "testing"

// The workers that a killed daemon has left are ended only where no daemon follows.
func TestUnitStops(t *testing.T) {
	const unit = "node-agent.service"
	for _, c := range []struct {
		name, jobs, result string
		want               bool
	}{
		{"stop", "  71 node-agent.service stop running\n", "timeout", true},
		{"stop at a shutdown", "1 other.service start waiting\n 2 node-agent.service stop running\n", "success", true},
		{"restart", "71 node-agent.service restart running\n", "success", false},
		{"restart of a daemon that hangs", "71 node-agent.service restart running\n", "timeout", false},
		{"crash", "", "signal", false},
		{"watchdog", "", "watchdog", false},
		{"crash beside another job", "71 other.service stop running\n", "core-dump", false},
		{"end by itself", "", "success", true},
		{"no words", "71\n", "signal", false},
	} {
		if got := unitStops(c.jobs, unit, c.result); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
