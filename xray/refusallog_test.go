package xray

import (
	"maps"
	"testing"
	"time"
)

// The log tells of refused connections once a minute, by inbound, each of them once.
func TestRefusalLog(t *testing.T) {
	var l refusalLog
	start := time.Now()
	for i, step := range []struct {
		pid    int
		after  time.Duration
		counts map[string]int64
		want   map[string]int64
	}{
		{1, 0, nil, nil},
		{1, time.Second, map[string]int64{"a": 3}, map[string]int64{"a": 3}},
		{1, 2 * time.Second, map[string]int64{"a": 5, "b": 1}, nil},
		{1, 60 * time.Second, map[string]int64{"a": 5, "b": 1}, nil},
		{1, 61 * time.Second, map[string]int64{"a": 6, "b": 1}, map[string]int64{"a": 3, "b": 1}},
		{1, 300 * time.Second, map[string]int64{"a": 6, "b": 1}, nil},
		{2, 301 * time.Second, map[string]int64{"a": 2}, map[string]int64{"a": 2}}, // another worker counts anew
	} {
		if got := l.due(step.pid, start.Add(step.after), step.counts); !maps.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}
