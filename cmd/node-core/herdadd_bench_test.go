package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// BenchmarkSubscriptionAddConnected measures the command subscription add where all nodes that its group
// reaches are connected and get the change: how long the command takes, and how long until the last node has it.
func BenchmarkSubscriptionAddConnected(b *testing.B) {
	herdDatabases(b, func(b *testing.B, database string) {
		h := newHerd(b, herdSize(b), 100, database)
		stop := h.run()
		defer stop()
		h.await(&h.reported, int64(len(h.keys)))
		h.await(&h.beats, h.beats.Load()+int64(len(h.keys))) // now all of the start is over
		var command, all, cpu time.Duration
		n := 0
		for b.Loop() {
			n++
			changed, reported := h.changed.Load(), h.reported.Load()
			used, start := h.cpu(), time.Now()
			cmd := exec.Command("node-core", "subscription", "add", "--user", "user-0", "--data-dir", h.dir)
			cmd.Stderr = os.Stderr
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
			command += time.Since(start)
			h.await(&h.changed, changed+int64(len(h.keys)))
			all += time.Since(start)
			h.await(&h.reported, reported+int64(len(h.keys)))
			cpu += h.cpu() - used
		}
		b.ReportMetric(float64(command.Milliseconds())/float64(n), "ms-command")
		b.ReportMetric(all.Seconds()/float64(n), "s-all-nodes")
		b.ReportMetric(cpu.Seconds()/float64(n), "core-cpu-s")
		b.ReportMetric(float64(h.failed.Load()), "failures")
	})
}
