package corestore

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// Items that come while a batch is stored are stored together, each once. Where storing panics, all of its batch
// get an error, and later ones are stored.
func TestTogether(t *testing.T) {
	var q together[int]
	var stored [][]int // store is called by one goroutine at a time
	going, proceed := make(chan struct{}), make(chan struct{})
	store := func(items []int) error {
		if len(stored) == 0 {
			close(going)
			<-proceed
		}
		stored = append(stored, slices.Sorted(slices.Values(items)))
		if slices.Contains(items, 3) {
			panic("three")
		}
		return nil
	}
	var adding sync.WaitGroup
	errs := make([]error, 4)
	add := func(item int) {
		adding.Go(func() {
			defer func() {
				if recover() != nil {
					errs[item] = errors.New("panic")
				}
			}()
			errs[item] = q.add(item, store)
		})
	}
	add(0)
	<-going
	for item := 1; item < 4; item++ {
		add(item)
	}
	for waiting := 0; waiting < 3; runtime.Gosched() {
		q.mu.Lock()
		if q.next != nil {
			waiting = len(q.next.items)
		}
		q.mu.Unlock()
	}
	close(proceed)
	adding.Wait()
	if len(stored) != 2 || !slices.Equal(stored[1], []int{1, 2, 3}) {
		t.Errorf("stored %v, want 0 and then the others together", stored)
	}
	if errs[0] != nil || errs[1] == nil || errs[2] == nil || errs[3] == nil {
		t.Errorf("got the errors %v, want one for each of the batch that panicked", errs)
	}
	if err := q.add(0, store); err != nil || len(stored) != 3 {
		t.Errorf("after the panic: %v, %v", stored, err)
	}
}
