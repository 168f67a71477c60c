package agent

import (
	"sync"
	"time"
)

const (
	// crashesInARow make a configuration suspect.
	crashesInARow = 3
	// crashWindow is how soon one crash has to follow another to be in a row with
	// it.
	crashWindow = time.Minute
)

// crashes counts those of the Xray worker since the running configuration was
// applied.
type crashes struct {
	mu        sync.Mutex
	count     int
	last      time.Time     // of the last crash
	since     time.Time     // of the running configuration
	suspected chan struct{} // of one slot: that many came in a row
}

func newCrashes() *crashes { return &crashes{suspected: make(chan struct{}, 1)} }

func (c *crashes) record(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.last) > crashWindow {
		c.count = 0
	}
	c.count, c.last = c.count+1, now
	if c.count >= crashesInARow {
		select {
		case c.suspected <- struct{}{}:
		default:
		}
	}
}

// reset begins to count anew: what made them is gone.
func (c *crashes) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count = 0
}

// applied tells that another configuration runs. Crashes of a moment ago go on
// counting: it may have their cause too.
func (c *crashes) applied(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = now
	if now.Sub(c.last) > crashWindow {
		c.count = 0
	}
}

// proved tells whether the running configuration has shown itself good: for a while
// the worker has not crashed under it.
func (c *crashes) proved(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.since) > crashWindow && now.Sub(c.last) > crashWindow
}

func (c *crashes) suspect() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count >= crashesInARow
}
