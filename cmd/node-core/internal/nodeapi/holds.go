package nodeapi

import (
	"sync"
	"time"
)

// holdsEvery is how far apart the moments are at which held heartbeats end. Those of ten thousand nodes end and
// come again 400 times a second: together, they wake the process four times a second.
const holdsEvery = 250 * time.Millisecond

// holds ends held heartbeats, many at a time, with one timer for each moment. The zero value is ready.
type holds struct {
	mu      sync.Mutex
	began   time.Time
	moments map[time.Duration]chan struct{} // since began
}

// end returns a channel. It is closed at the last common moment within the given time, and at once where no such
// moment is left.
func (h *holds) end(within time.Duration) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.moments == nil {
		h.began, h.moments = now, map[time.Duration]chan struct{}{}
	}
	past := now.Sub(h.began)
	at := (past + within).Truncate(holdsEvery)
	ended := h.moments[at]
	switch {
	case ended != nil:
	case at <= past:
		ended = make(chan struct{})
		close(ended)
	default:
		ended = make(chan struct{})
		h.moments[at] = ended
		time.AfterFunc(at-past, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.moments, at)
			close(ended)
		})
	}
	return ended
}
