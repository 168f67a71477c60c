// Package heap decides how much garbage the worker lets grow before Go's runtime collects it. While
// the worker allocates much, as with many new connections, garbage may grow to twice of what Go
// allows by itself, so that it is collected half as often. At rest it is given back. While a process
// starts, worker or daemon, nothing is collected before the heap has a size at which that pays.
package heap

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	lookEvery = time.Second
	// restAfter is how many looks in a row without much allocation mean rest.
	restAfter = 5
	// restBytes is how much lives for each look that is between two collections at rest. Bursts of
	// traffic may follow each other, and a collection visits everything that lives, which takes a
	// processor about a millisecond for a megabyte: a hundredth of one processor at the most.
	restBytes = 10 << 20
	// asGo is what Go does by itself: garbage may grow until it is as much as what lives (GOGC=100).
	asGo = 100
	// busy is the percentage while much is allocated. 400 and 800 cost no less processor time than
	// 200 in measurements: the processor's caches hold less of what is used.
	busy = 200
	// busyBytes and busyPart are how much is allocated between two looks at least while the worker
	// is busy, in bytes and as a part of what lives. With less, garbage is collected once in a minute
	// at most, and costs nothing worth a megabyte.
	busyBytes = 1 << 20
	busyPart  = 64
	// steps are the smallest changes of the percentage. Each change stops the process for microseconds.
	steps = 10
	// memoryPart is which part of the memory the additional garbage may be.
	memoryPart = 8
)

// reading is what Go's runtime tells, in bytes.
type reading struct {
	allocated uint64 // since the process began
	live      uint64 // what the last collection found, with the goroutines' stacks
}

// pacer decides by one reading after the other. One goroutine owns it.
type pacer struct {
	memory  uint64 // what this process may take, in bytes
	percent int
	last    reading
	quiet   int  // looks in a row without much allocation
	rested  int  // looks since the last collection at rest
	dirty   bool // much was allocated since then
}

func newPacer(memory uint64, first reading) *pacer {
	return &pacer{memory: memory, percent: asGo, last: first, rested: 1 << 30}
}

// look returns the percentage for percentage.pace, and whether garbage is to be given back now.
func (p *pacer) look(now reading) (percent int, rest bool) {
	allocated := now.allocated - p.last.allocated
	p.last = now
	p.rested++
	if allocated >= max(busyBytes, now.live/busyPart) {
		p.quiet, p.dirty = 0, true
		wanted := asGo + int(min(busy-asGo, 100*p.memory/memoryPart/max(now.live, 1)))
		if max(wanted-p.percent, p.percent-wanted) >= steps {
			p.percent = wanted
		}
		return p.percent, false
	}
	p.quiet++
	if p.quiet >= restAfter {
		p.percent = asGo
		if rest = p.dirty && p.rested >= int(now.live/restBytes); rest {
			p.rested, p.dirty = 0, false
		}
	}
	return p.percent, rest
}

// Run paces the collections of this process until ctx ends. memory is how many bytes the process may
// take, as Available returns it.
func Run(ctx context.Context, memory uint64) {
	p := newPacer(memory, read())
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		percent, rest := p.look(read())
		ofProcess.pace(percent)
		if rest {
			debug.FreeOSMemory()
		}
	}
}

// read reads what Go's runtime has counted. It stops nothing.
func read() reading {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}}
	metrics.Read(samples)
	return reading{samples[0].Value.Uint64(), samples[1].Value.Uint64() + samples[2].Value.Uint64()}
}
