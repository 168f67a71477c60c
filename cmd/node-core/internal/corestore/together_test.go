package corestore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// Items that come while a batch is stored are stored together, each once. Where storing panics, all of its batch
// get an error, and later ones are stored.
func TestTogether(t *testing.T) {
	var q together[int]
	var stored [][]int // store is called by one goroutine at a time
	going, proceed := make(chan struct{}), make(chan struct{})
	store := func(_ context.Context, items []int) error {
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
			errs[item] = q.add(t.Context(), item, store)
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
	if err := q.add(t.Context(), 0, store); err != nil || len(stored) != 3 {
		t.Errorf("after the panic: %v, %v", stored, err)
	}
}

// A batch has a bound, and a caller whose context ends waits no longer.
func TestTogetherIsBounded(t *testing.T) {
	var q together[int]
	going, proceed := make(chan struct{}), make(chan struct{})
	var begin sync.Once
	var most, stored int // store is called by one goroutine at a time
	store := func(_ context.Context, items []int) error {
		begin.Do(func() { close(going) })
		<-proceed
		most, stored = max(most, len(items)), stored+len(items)
		return nil
	}
	var adding sync.WaitGroup
	add := func() {
		adding.Go(func() {
			if err := q.add(t.Context(), 0, store); err != nil {
				t.Error(err)
			}
		})
	}
	add()
	<-going
	var last *batch[int]
	for _, many := range []int{mostTogether, mostTogether, 100} {
		for range many {
			add()
		}
		for joined := false; !joined; runtime.Gosched() {
			q.mu.Lock()
			if joined = q.next != last && q.next != nil && len(q.next.items) == many; joined {
				last = q.next
			}
			q.mu.Unlock()
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.add(ended, 0, store); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller whose context has ended got %v", err)
	}
	close(proceed)
	adding.Wait()
	if want := 1 + 2*mostTogether + 100 + 1; most != mostTogether || stored != want {
		t.Errorf("stored %d items, at most %d together; want %d and %d", stored, most, want, mostTogether)
	}
}

// Of reports that are stored together each counts once, whatever the others are.
func TestReportsTogether(t *testing.T) {
	s := openStore(t)
	ctx := t.Context()
	var nodes []Node
	for i := range 5 {
		node, _, err := s.AddNode(ctx, fmt.Sprint("node", i), "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	if err := s.Applied(ctx, nodes[0].ID, "stored", 1); err != nil {
		t.Fatal(err)
	}
	if err := s.storeReports(ctx, []report{
		{nodes[0].ID, "stored", 2}, // a repetition
		{nodes[1].ID, "twice", 3},
		{nodes[1].ID, "twice", 4},
		{nodes[2].ID, "first", 5},
		{nodes[2].ID, "second", 6},
		{nodes[4].ID + 1000, "removed", 7},
		{nodes[3].ID, "", 8},
		{nodes[4].ID, "last", 9},
	}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{1, 3, 6, 8, 9} {
		node, err := s.NodeByID(ctx, nodes[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		if node.AppliedRevision == nil || *node.AppliedRevision != want {
			t.Errorf("node %d runs %v, want %d", i, node.AppliedRevision, want)
		}
	}
}
