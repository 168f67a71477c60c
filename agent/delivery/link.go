package delivery

import (
	"sync"
	"time"

	"nodeagent/coreclient"
)

// RejectedWait is the pace while Core does not take the key.
const RejectedWait = time.Minute

// Link is what is known of Core's side: whether it answers and whether it takes
// the node's key. Heartbeats alone tell it (one route that rejects may be a
// filter between); the courier keeps to it.
type Link struct {
	mu       sync.Mutex
	lastGood time.Time     // of the last good heartbeat
	rejected error         // Core's words where it does not take the key
	open     chan struct{} // closed while the key is taken
}

func NewLink() *Link {
	open := make(chan struct{})
	close(open)
	return &Link{open: open}
}

func (l *Link) Heartbeat(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.lastGood = time.Now()
		if l.rejected != nil {
			l.rejected = nil
			close(l.open)
		}
		return
	}
	if coreclient.ClassOf(err) == coreclient.Rejected {
		if l.rejected == nil {
			l.open = make(chan struct{})
		}
		l.rejected = err
	}
}

// gate returns a channel that is closed while, or as soon as, the key is taken.
func (l *Link) accepted() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

func (l *Link) State() (lastGood time.Time, rejected error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastGood, l.rejected
}
