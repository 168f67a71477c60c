package nodeapi

import (
	"testing"
	"time"
)

// Two hundred nodes get a change as a delta in the answer to their heartbeats, all of them come to the
// same document, and what one change costs on the wire follows the change.
func TestHerd(t *testing.T) {
	const nodes, subscriptions = 200, 1000
	h := newHerd(t, nodes, subscriptions, 10)
	defer h.run()()
	h.wait(subscriptions)
	whole := h.wire.Load()
	const changes = 5
	for i := range int64(changes) {
		h.add(1)
		h.wait(subscriptions + i + 1)
	}
	each := (h.wire.Load() - whole) / changes / nodes
	if each > 4096 || each > whole/nodes/4 {
		t.Errorf("a change cost %d bytes for each node, and the first document %d", each, whole/nodes)
	}
	var deltas, wholes int64
	for _, n := range h.nodes {
		deltas, wholes = deltas+n.deltas.Load(), wholes+n.wholes.Load()
	}
	if wholes != nodes || deltas < nodes {
		t.Errorf("there were %d whole documents and %d deltas", wholes, deltas)
	}
	t.Logf("%d bytes for each node and change, %d deltas", each, deltas)
}

// A burst of edits is not one document for each node and edit.
func TestHerdInABurst(t *testing.T) {
	const nodes, edits = 50, 40
	h := newHerd(t, nodes, 100, 1)
	defer h.run()()
	h.wait(100)
	for range edits {
		h.add(1)
	}
	h.wait(100 + edits)
	var got int64
	for _, n := range h.nodes {
		got += n.deltas.Load() + n.wholes.Load() - 1
	}
	if got > nodes*edits/2 {
		t.Errorf("%d edits were %d changes on %d nodes", edits, got, nodes)
	}
}

// BenchmarkHerd measures what Core needs for the first document of many nodes, and for one client
// more on all of them.
func BenchmarkHerd(b *testing.B) {
	for name, size := range map[string][2]int{"1000x10000": {1000, 10_000}, "100x100000": {100, 100_000}} {
		b.Run(name, func(b *testing.B) {
			h := newHerd(b, size[0], size[1], 0)
			cpu, started := h.cpu(), time.Now()
			stop := h.run()
			h.wait(int64(size[1]))
			first := map[string]float64{"first-cpu-s": (h.cpu() - cpu).Seconds(), "first-MB": float64(h.wire.Load()) / 1e6, "first-s": time.Since(started).Seconds()}
			time.Sleep(time.Second) // until all heartbeats are held
			cpu, wire := h.cpu(), h.wire.Load()
			started = time.Now()
			added := int64(size[1])
			for b.Loop() {
				h.add(1)
				added++
				h.wait(added)
			}
			b.ReportMetric((h.cpu()-cpu).Seconds()/float64(b.N), "cpu-s/change")
			b.ReportMetric(float64(h.wire.Load()-wire)/1e6/float64(b.N), "MB/change")
			b.ReportMetric(time.Since(started).Seconds()/float64(b.N), "s/change")
			b.ReportMetric(float64(h.peak())/1e6, "peak-MB")
			for name, value := range first {
				b.ReportMetric(value, name)
			}
			stop()
		})
	}
}
