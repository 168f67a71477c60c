package heap

import (
	"os"
	"runtime"
	"runtime/debug"
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
// first time, or to a part of memory, which is how many bytes the process may take. From then on Go
// paces as it does by itself. Where the operator has set GOGC, that holds.
func Begin(memory uint64) {
	percent := firstPercent(memory)
	if percent <= asGo || os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(percent)
	type sentinel struct{ _ [64]byte } // too large to share a piece of memory with other objects
	runtime.AddCleanup(&sentinel{}, func(percent int) { debug.SetGCPercent(percent) }, asGo)
}

// firstPercent is the percentage that holds until the first collection.
func firstPercent(memory uint64) int {
	return int(min(beginBytes, memory/memoryPart) * asGo / leastHeap)
}
