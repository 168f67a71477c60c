// Package hub wakes those who wait for a node: the heartbeats that Core holds open, when the
// node's configuration has changed, and the commands that wait until the node runs a change,
// when it has said something about that. It also wakes the readers of events.
package hub

import (
	"sync"
	"time"
)

// Hub connects the calls that change configurations with the heartbeats that wait for a
// change, and the nodes' reports with the commands that wait for them. One that waits costs
// one channel and no query. Its methods may be called from any goroutine.
//
// The hub has one mutex. It is held only inside the methods, which call nothing else, so it
// may be taken while any other lock is held. Nothing is stored: after a restart of Core each
// node's first heartbeat compares its revision with the database.
type Hub struct {
	mu       sync.Mutex
	changed  map[int64]chan struct{} // by node id; closed and removed at the node's next change
	reported map[int64]chan struct{} // the same for the node's next report
	happened map[int64]chan struct{} // the same for the next event; its key is 0
	spread   spread
}

// New makes a hub.
func New() *Hub {
	return &Hub{changed: map[int64]chan struct{}{}, reported: map[int64]chan struct{}{}, happened: map[int64]chan struct{}{}, spread: spread{due: map[int64]time.Time{}, woken: map[int64]time.Time{}}}
}

// Reported wakes the commands that wait for the node. Call it after it is stored which
// revision the node runs, or what it refuses.
func (h *Hub) Reported(node int64) { h.wake(h.reported, node) }

// NextReport returns a channel that is closed at the node's next report. Call it before reading
// what the node runs: a report between the two closes the channel.
func (h *Hub) NextReport(node int64) <-chan struct{} { return h.next(h.reported, node) }

// Happened wakes the readers of events. Call it after an event is committed.
func (h *Hub) Happened() { h.wake(h.happened, 0) }

// NextEvent returns a channel that is closed at the next event. Call it before reading events: one
// that is committed between the two closes the channel.
func (h *Hub) NextEvent() <-chan struct{} { return h.next(h.happened, 0) }

func (h *Hub) wake(waiting map[int64]chan struct{}, nodes ...int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range nodes {
		if c := waiting[id]; c != nil {
			close(c)
			delete(waiting, id)
		}
	}
}

func (h *Hub) next(waiting map[int64]chan struct{}, node int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if waiting[node] == nil {
		waiting[node] = make(chan struct{})
	}
	return waiting[node]
}
