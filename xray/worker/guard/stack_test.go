package guard

import (
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
)

// The stack of a goroutine is large after growStack, and stays so until the next collection.
func TestGrowStack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const goroutines = 1000
	used := func(each func()) uint64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		end := make(chan struct{})
		var started, ended sync.WaitGroup
		for range goroutines {
			started.Add(1)
			ended.Go(func() {
				each()
				started.Done()
				<-end
			})
		}
		started.Wait()
		runtime.ReadMemStats(&after)
		close(end)
		ended.Wait()
		return (after.StackInuse - before.StackInuse) / goroutines
	}
	if small, large := used(func() {}), used(func() { growStack(1) }); large < small+stackRoom/2 || large < stackRoom {
		t.Errorf("a goroutine has a stack of %d bytes, and of %d with growStack", small, large)
	}
}
