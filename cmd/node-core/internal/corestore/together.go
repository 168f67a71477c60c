package corestore

import (
	"errors"
	"sync"
)

// errNotStored is what the others of a batch get where store has panicked.
var errNotStored = errors.New("what came at the same time could not be stored: see the log of node-core")

// together stores in one transaction what many nodes wait for: after a change of all of them, each
// would have one of its own, which waits for the disk. The zero value is ready.
type together[T any] struct {
	mu      sync.Mutex
	next    *batch[T]  // that is not being stored yet; nil for none
	storing sync.Mutex // held while a batch is stored
}

type batch[T any] struct {
	items []T
	done  chan struct{} // closed when err is set
	err   error
}

// add calls store with the item, and with those that come while another batch is stored. It returns the error
// of store.
func (q *together[T]) add(item T, store func([]T) error) error {
	q.mu.Lock()
	of := q.next
	first := of == nil
	if first {
		of = &batch[T]{done: make(chan struct{})}
		q.next = of
	}
	of.items = append(of.items, item)
	q.mu.Unlock()
	if !first {
		<-of.done
		return of.err
	}
	// While the batch before is stored, others join this one.
	q.storing.Lock()
	defer q.storing.Unlock()
	q.mu.Lock()
	q.next = nil
	q.mu.Unlock()
	of.err = errNotStored
	defer close(of.done)
	of.err = store(of.items)
	return of.err
}
