package nodeapi

import (
	"context"
	"sync"
)

// nodeLocks has a lock for each node that has requests. The zero value is ready.
type nodeLocks struct {
	mu   sync.Mutex
	held map[int64]*nodeLock
}

type nodeLock struct {
	slot  chan struct{}
	users int // that have the lock or wait for it
}

// lock waits for the node's lock, or until ctx ends.
func (l *nodeLocks) lock(ctx context.Context, node int64) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[int64]*nodeLock{}
	}
	lock := l.held[node]
	if lock == nil {
		lock = &nodeLock{slot: make(chan struct{}, 1)}
		l.held[node] = lock
	}
	lock.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if lock.users--; lock.users == 0 {
			delete(l.held, node)
		}
	}
	select {
	case lock.slot <- struct{}{}:
		return func() { <-lock.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// oneAtATime runs the route for one request of a node at a time. The store has one writer for
// all nodes: a node with many batches waits for itself, and not the others for it.
func (a *API) oneAtATime(route func(*request) (any, error)) func(*request) (any, error) {
	return func(r *request) (any, error) {
		unlock, err := a.storing.lock(r.Context(), r.nodeID)
		if err != nil {
			return nil, err
		}
		defer unlock()
		return route(r)
	}
}
