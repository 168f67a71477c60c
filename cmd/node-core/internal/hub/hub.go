// Package hub wakes the heartbeats that Core holds open when their node's configuration has
// changed.
package hub

import "sync"

// Hub connects the calls that change configurations with the heartbeats that wait for a
// change. A heartbeat that waits costs one channel and no query. Its methods may be called
// from any goroutine.
//
// The hub has one mutex. It is held only inside the methods, which call nothing else, so it
// may be taken while any other lock is held. Nothing is stored: after a restart of Core each
// node's first heartbeat compares its revision with the database.
type Hub struct {
	mu      sync.Mutex
	changed map[int64]chan struct{} // by node id; closed and removed at the node's next change
}

// New makes a hub.
func New() *Hub { return &Hub{changed: map[int64]chan struct{}{}} }

// Changed wakes the heartbeats of the nodes with these ids. Call it after the change is
// committed: a woken node fetches its configuration at once.
func (h *Hub) Changed(nodes ...int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range nodes {
		if c := h.changed[id]; c != nil {
			close(c)
			delete(h.changed, id)
		}
	}
}

// Next returns a channel that is closed at the node's next change. Call it before reading the
// node's revision: a change between the two closes the channel.
func (h *Hub) Next(node int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed[node] == nil {
		h.changed[node] = make(chan struct{})
	}
	return h.changed[node]
}
