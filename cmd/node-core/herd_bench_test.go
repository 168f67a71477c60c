package main

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// herdSize is how many nodes the benchmarks connect. HERD_NODES is another number.
func herdSize(b *testing.B) int {
	b.Helper()
	given := os.Getenv("HERD_NODES")
	if given == "" {
		return 10_000
	}
	n, err := strconv.Atoi(given)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkIdleHerd measures what Core needs for nodes that hold heartbeats and do nothing else.
func BenchmarkIdleHerd(b *testing.B) {
	herdDatabases(b, func(b *testing.B, database string) {
		const period = time.Minute
		start := time.Now()
		h := newHerd(b, herdSize(b), 100, database)
		b.Logf("made the database in %s", time.Since(start))
		start = time.Now()
		cpu := h.cpu()
		stop := h.run()
		defer stop()
		b.ReportMetric((h.cpu() - cpu).Seconds(), "connect-cpu-s")
		b.ReportMetric(time.Since(start).Seconds(), "connect-s")
		time.Sleep(period / 2)
		for b.Loop() {
			cpu, written := h.cpu(), h.read("io", "write_bytes")
			time.Sleep(period)
			b.ReportMetric(100*(h.cpu()-cpu).Seconds()/period.Seconds(), "cpu-%")
			b.ReportMetric(float64(h.read("io", "write_bytes")-written)/1e6*time.Minute.Seconds()/period.Seconds(), "disk-MB/min")
			b.ReportMetric(float64(h.failed.Load()), "failures")
			b.ReportMetric(float64(h.read("status", "VmRSS"))*1024/1e6, "MB")
			b.ReportMetric(float64(h.read("status", "VmHWM"))*1024/1e6, "peak-MB")
		}
	})
}
