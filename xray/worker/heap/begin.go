package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

const (
	// leastHeap is how large the heap is at the first collection with GOGC=100 (heapMinimum in
	// runtime/mgcpacer.go). The percentage scales it.
	leastHeap = 4 << 20
	// beginBytes is how large the heap may grow before the first collection. A process that starts
	// with a hundred thousand clients otherwise collects ten times and more while nearly all that it
	// has allocated lives, which takes a third of the start's processor time.
	beginBytes = 128 << 20
)

// Begin lets the heap of this process, which starts, grow to beginBytes before it is collected for the
// first time, or to a part of memory, which is how many bytes the process may take. From then on Run
// paces, or Go by itself in a process without Run. Where the operator has set GOGC, that holds.
func Begin(memory uint64) {
	percent := firstPercent(memory)
	if percent <= asGo || os.Getenv("GOGC") != "" {
		return
	}
	ofProcess.begin(percent)
	type sentinel struct{ _ [64]byte } // too large to share a piece of memory with other objects
	runtime.AddCleanup(&sentinel{}, func(p *percentage) { p.collected() }, &ofProcess)
}

// sparingPercent is the percentage while a worker takes over from another one: the two have all clients
// twice, so that garbage is collected early. It costs processor time while the other worker serves.
const sparingPercent = 40

// Spare lets little garbage grow until EndSparing. Where the operator has set GOGC, that holds.
func Spare() {
	if os.Getenv("GOGC") == "" {
		ofProcess.spare(sparingPercent)
	}
}

// EndSparing ends what Spare began.
func EndSparing() { ofProcess.endSparing() }

// firstPercent is the percentage that holds until the first collection.
func firstPercent(memory uint64) int {
	return int(min(beginBytes, memory/memoryPart) * asGo / leastHeap)
}

// ofProcess is the percentage of this process. Nothing else sets it.
var ofProcess = percentage{paced: asGo, set: func(percent int) { debug.SetGCPercent(percent) }}

// percentage is how much garbage may grow, as a part of the live heap. Begin sets the first one, and the
// first collection ends it. The pacer's holds from then on: during the start it would make the process
// collect early. The end of the start can't wait for the pacer's next look: at 3200 % of 100 MB the
// process may allocate gigabytes by then.
type percentage struct {
	set func(percent int)

	mu      sync.Mutex
	starts  bool // Begin's holds
	sparing bool // Spare's holds
	paced   int  // the pacer's
}

// begin sets the percentage that holds until the first collection.
func (p *percentage) begin(first int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts = true
	p.set(first)
}

// collected notes the first collection.
func (p *percentage) collected() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts = false
	if !p.sparing {
		p.set(p.paced)
	}
}

func (p *percentage) spare(percent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sparing = true
	p.set(percent)
}

func (p *percentage) endSparing() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.sparing {
		return
	}
	p.sparing = false
	if !p.starts {
		p.set(p.paced)
	}
}

// pace sets the pacer's percentage, from the first collection on.
func (p *percentage) pace(percent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if percent == p.paced {
		return
	}
	p.paced = percent
	if !p.starts && !p.sparing {
		p.set(percent)
	}
}
