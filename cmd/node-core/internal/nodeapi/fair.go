package nodeapi

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"nodeagent/cmd/node-core/internal/problem"
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

// nodeCounts counts what each node has open. The zero value is ready.
type nodeCounts struct {
	mu   sync.Mutex
	open map[int64]int
}

// enter counts one more of a node, until leave is called. It returns a problem where the node
// has that many open already.
func (c *nodeCounts) enter(node int64, most int) (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[int64]int{}
	}
	if c.open[node] >= most {
		return nil, problem.New(http.StatusTooManyRequests, "too_many_requests", fmt.Sprintf("the node has %d requests for its configuration open; read their answers first", most))
	}
	c.open[node]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open[node]--; c.open[node] == 0 {
			delete(c.open, node)
		}
	}, nil
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
