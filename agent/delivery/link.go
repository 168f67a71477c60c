package delivery

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
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
	lastBad  time.Time     // of the last heartbeat that failed
	asked    time.Time     // when the last heartbeat was sent
	rejected error         // Core's answer while it does not accept the key; nil otherwise
	open     chan struct{} // closed while the key is accepted
	// strange has the routes whose last answer was no acknowledgement.
	strange map[string]Strange
}

// Strange is an answer of success on one of Core's routes that Core did not give, or that says
// that the request was not taken. What was sent is kept.
type Strange struct {
	Path   string    // of the route
	Since  time.Time // of the first such answer in a row
	Answer error     // the latest one; a *coreclient.NotAcknowledged
}

// NewLink makes a link over which Core accepts the key, until a heartbeat says otherwise.
func NewLink() *Link {
	open := make(chan struct{})
	close(open)
	return &Link{open: open, strange: map[string]Strange{}}
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

// LastFailed returns when a heartbeat failed last, zero for never.
func (l *Link) LastFailed() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastBad
}

// Heartbeat takes the outcome of a heartbeat.
func (l *Link) Heartbeat(err error) {
	l.Answered(wire.PathHeartbeat, err)
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
	l.lastBad = time.Now()
	if errors.Is(err, coreclient.ErrNotSent) || coreclient.ClassOf(err) == coreclient.Rejected {
		if l.rejected == nil {
			l.open = make(chan struct{})
		}
		l.rejected = err
	}
}

// Answered takes the outcome of a request to the route with the path.
func (l *Link) Answered(path string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer, ok := errors.AsType[*coreclient.NotAcknowledged](err)
	if !ok {
		delete(l.strange, path)
		return
	}
	since := time.Now()
	if before, again := l.strange[path]; again {
		since = before.Since
	}
	l.strange[path] = Strange{path, since, answer}
}

// Strange returns the routes whose last answer was no acknowledgement, by path.
func (l *Link) Strange() []Strange {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Strange, 0, len(l.strange))
	for _, s := range l.strange {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Strange) int { return cmp.Compare(a.Path, b.Path) })
	return list
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
