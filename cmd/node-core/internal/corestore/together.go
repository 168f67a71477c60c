package corestore

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// mostTogether is how many items one transaction stores, so that edits wait little for it, and an error is
	// one of few.
	mostTogether = 500
	// togetherWithin bounds the time of one transaction. It is less than the 30 seconds after which a node gives up
	// its request (coreclient): a connection to PostgreSQL that says nothing holds up no node for longer.
	togetherWithin = 20 * time.Second
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
// of store, or else that of ctx where it ends before. What is stored does not end with ctx.
func (q *together[T]) add(ctx context.Context, item T, store func(context.Context, []T) error) error {
	q.mu.Lock()
	of := q.next
	first := of == nil || len(of.items) == mostTogether
	if first {
		of = &batch[T]{done: make(chan struct{})}
		q.next = of
	}
	of.items = append(of.items, item)
	q.mu.Unlock()
	if !first {
		select {
		case <-of.done:
			return of.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// While the batch before is stored, others join this one.
	q.storing.Lock()
	defer q.storing.Unlock()
	q.mu.Lock()
	if q.next == of { // otherwise it is full, and another one follows
		q.next = nil
	}
	q.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), togetherWithin)
	defer cancel()
	of.err = errNotStored
	defer close(of.done)
	of.err = store(ctx, of.items)
	return of.err
}
