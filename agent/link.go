package agent

import (
	"sync"
	"time"

	"nodeagent/coreclient"
)

// link is what is known of Core's side: whether it answers and whether it takes
// the node's key. Heartbeats alone tell it (one route that rejects may be a
// filter between); the courier keeps to it.
type link struct {
	mu       sync.Mutex
	lastGood time.Time     // of the last good heartbeat
	rejected error         // Core's words where it does not take the key
	accepted chan struct{} // closed while the key is taken
}

func newLink() *link {
	open := make(chan struct{})
	close(open)
	return &link{accepted: open}
}

func (l *link) heartbeat(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.lastGood = time.Now()
		if l.rejected != nil {
			l.rejected = nil
			close(l.accepted)
		}
		return
	}
	if coreclient.ClassOf(err) == coreclient.Rejected {
		if l.rejected == nil {
			l.accepted = make(chan struct{})
		}
		l.rejected = err
	}
}

// gate returns a channel that is closed while, or as soon as, the key is taken.
func (l *link) gate() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted
}

func (l *link) snapshot() (lastGood time.Time, rejected error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastGood, l.rejected
}
