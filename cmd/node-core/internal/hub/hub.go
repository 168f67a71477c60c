// Package hub wakes the heartbeats that Core holds open.
package hub

import "sync"

// Hub wakes heartbeats that are held. One that waits costs a channel and no
// query.
type Hub struct {
	mu      sync.Mutex
	changed map[int64]chan struct{} // by node; closed at its next change
}

// New makes a hub.
func New() *Hub { return &Hub{changed: map[int64]chan struct{}{}} }

// Changed wakes the heartbeats of the nodes.
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

// Next is closed at the node's next change. Get it before looking at the
// revision, so that no change falls between.
func (h *Hub) Next(node int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed[node] == nil {
		h.changed[node] = make(chan struct{})
	}
	return h.changed[node]
}
