package e2e

import (
	"path/filepath"
	"testing"
)

// BenchmarkChecks reports what confinement (Landlock), keepalive and the check of destinations cost:
// the speed of a download and the processor time of opened connections, as ratios to the same worker
// without them. The bounds are 0.98 and 1.02.
func BenchmarkChecks(b *testing.B) {
	p, _, agent, sub, dir := benchWorld(b, "")
	_, _, bareAgent, bareSub, bareDir := benchWorld(b, "unchecked")
	checked := benchClient(b, p, filepath.Join(dir, "checked"), sub.Links[0])
	bare := benchClient(b, p, filepath.Join(bareDir, "bare"), bareSub.Links[0])
	target := benchTarget(b)
	b.Run("download", func(b *testing.B) { b.ReportMetric(pairs(b, target, checked, bare), "of-unchecked-speed") })
	b.Run("open", func(b *testing.B) {
		worker, bareWorker := (&benchPair{agent: agent}).worker(b).PID, (&benchPair{agent: bareAgent}).worker(b).PID
		openMany(b, checked, target, worker, 32)
		openMany(b, bare, target, bareWorker, 32)
		var work, rates []float64
		for b.Loop() {
			var first, second opened
			for i := range openRounds {
				if i%2 == 0 {
					first.add(openMany(b, checked, target, worker, 32))
					second.add(openMany(b, bare, target, bareWorker, 32))
				} else {
					second.add(openMany(b, bare, target, bareWorker, 32))
					first.add(openMany(b, checked, target, worker, 32))
				}
			}
			work, rates = append(work, first.cpu/second.cpu), append(rates, second.seconds/first.seconds)
		}
		b.ReportMetric(median(work), "of-unchecked-cpu")
		b.ReportMetric(median(rates), "of-unchecked-rate")
	})
}
