package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
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
		start := time.Now()
		h := newHerd(b, herdSize(b), 100, database)
		b.Logf("made the database in %s", time.Since(start))
		start = time.Now()
		cpu := h.cpu()
		stop := h.run()
		defer stop()
		b.ReportMetric((h.cpu() - cpu).Seconds(), "connect-cpu-s")
		b.ReportMetric(time.Since(start).Seconds(), "connect-s")
		rounds := func(n int64) { h.await(&h.beats, h.beats.Load()+n*int64(len(h.keys))) }
		rounds(1) // now all of the start is over
		for b.Loop() {
			cpu, written, begin := h.cpu(), h.written(), time.Now()
			rounds(3) // 90 seconds: Core holds each heartbeat for 30
			period := time.Since(begin)
			status, err := h.process().NewStatus()
			h.must(err)
			b.ReportMetric(100*(h.cpu()-cpu).Seconds()/period.Seconds(), "cpu-%")
			b.ReportMetric(float64(h.written()-written)/1e6/period.Minutes(), "disk-MB/min")
			b.ReportMetric(float64(h.failed.Load()), "failures")
			b.ReportMetric(float64(status.VmRSS)/1e6, "MB")
			b.ReportMetric(float64(status.VmHWM)/1e6, "peak-MB")
		}
	})
}

// BenchmarkSubscriptionAdd measures the command subscription add, as a process, where its group reaches
// ten thousand nodes: over the unix socket, and over HTTPS with a token.
func BenchmarkSubscriptionAdd(b *testing.B) {
	herdDatabases(b, func(b *testing.B, database string) {
		h := newHerd(b, herdSize(b), 100, database)
		run := func(b *testing.B, args ...string) []byte {
			b.Helper()
			cmd := exec.Command("node-core", args...)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				b.Fatal(err)
			}
			return out
		}
		var token struct{ Token string }
		if err := json.Unmarshal(run(b, "token", "add", "bench", "--role", "owner", "--data-dir", h.dir, "--output", "json"), &token); err != nil {
			b.Fatal(err)
		}
		file := filepath.Join(b.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token.Token), 0o600); err != nil {
			b.Fatal(err)
		}
		for name, to := range map[string][]string{"socket": {"--data-dir", h.dir}, "https": {"--api", h.token.CoreURL, "--api-pin", h.token.Pin, "--token-file", file}} {
			b.Run(name, func(b *testing.B) {
				core := h.cpu()
				for b.Loop() {
					run(b, append([]string{"subscription", "add", "--user", "user-0"}, to...)...)
				}
				b.ReportMetric(float64((h.cpu()-core).Milliseconds())/float64(b.N), "core-cpu-ms/op")
				b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/op")
			})
			b.Run("version", func(b *testing.B) { // what the start of the process takes
				for b.Loop() {
					run(b, "--version")
				}
				b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/op")
			})
		}
	})
}
