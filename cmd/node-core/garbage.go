package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// garbageBytes is how much garbage may lie around where much lives, and leastPercent which part of what
	// lives at the least. Go by itself (GOGC=100) lets it grow until it is as much as what lives, goroutines'
	// stacks included: 300 MB for ten thousand connected nodes, which allocate 3 MB a second.
	garbageBytes = 48 << 20
	leastPercent = 10
	paceEvery    = 10 * time.Second
)

// garbagePercent returns the percentage for debug.SetGCPercent where so many bytes live.
func garbagePercent(live uint64) int {
	return int(min(max(100*garbageBytes/max(live, 1), leastPercent), 100))
}

// paceGarbage bounds garbage until ctx ends, unless the environment says how much there may be.
func paceGarbage(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for percent := 100; ; {
		samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}}
		metrics.Read(samples)
		// A change stops the process for microseconds.
		if now := garbagePercent(samples[0].Value.Uint64() + samples[1].Value.Uint64()); now != percent {
			percent = now
			debug.SetGCPercent(percent)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
