package delivery

import (
	"sync"
	"time"

	"nodeagent/coreclient"
)

// RejectedWait is the pause between two requests while Core does not accept the node's key.
const RejectedWait = time.Minute

// Link says whether Core answers, and whether it accepts the node's key. Only heartbeats
// change it: where another route answers 401 or 403, that can be a filter between node and
// Core. The courier sends nothing while the key is not accepted. Its methods may be called
// by any goroutine.
type Link struct {
	mu       sync.Mutex    // no other lock is taken while it is held
	lastGood time.Time     // of the last heartbeat that Core answered
	asked    time.Time     // when the last heartbeat was sent
	rejected error         // Core's answer while it does not accept the key; nil otherwise
	open     chan struct{} // closed while the key is accepted
}

// NewLink makes a link over which Core accepts the key, until a heartbeat says otherwise.
func NewLink() *Link {
	open := make(chan struct{})
	close(open)
	return &Link{open: open}
}

// Asked notes that a heartbeat is sent.
func (l *Link) Asked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = time.Now()
}

// LastAsked returns when the last heartbeat was sent, zero for never.
func (l *Link) LastAsked() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

// Heartbeat takes the outcome of a heartbeat.
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

// accepted returns a channel that is closed as soon as Core accepts the key.
func (l *Link) accepted() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// State returns when Core last answered a heartbeat, zero for never, and the error with which
// it does not accept the key, nil where it does.
func (l *Link) State() (lastGood time.Time, rejected error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastGood, l.rejected
}
