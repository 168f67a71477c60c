package agent

import (
	"sync"
	"time"
)

const (
	// crashesInARow is how many crashes make a configuration suspect.
	crashesInARow = 3
	// crashWindow is the longest time between two crashes in a row.
	crashWindow = time.Minute
)

// crashes counts the crashes of the Xray worker in a row, to find out whether the running
// configuration causes them. Its methods may be called by any goroutine.
type crashes struct {
	mu    sync.Mutex
	count int       // in a row
	last  time.Time // when the worker crashed last
	since time.Time // when the running configuration was applied

	suspected chan struct{} // one slot; filled when count reaches crashesInARow
}

func newCrashes() *crashes { return &crashes{suspected: make(chan struct{}, 1)} }

// record counts a crash.
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

// reset forgets the crashes: a rollback deals with them.
func (c *crashes) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count = 0
}

// applied notes that another configuration runs. Crashes within the last crashWindow still
// count: the new configuration may have the same cause in it.
func (c *crashes) applied(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = now
	if now.Sub(c.last) > crashWindow {
		c.count = 0
	}
}

// proved tells whether the running configuration has proved good: it has run for longer than
// crashWindow, and the worker has not crashed in that time.
func (c *crashes) proved(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.since) > crashWindow && now.Sub(c.last) > crashWindow
}

// suspect tells whether the worker crashed so often in a row that the running configuration
// is given up.
func (c *crashes) suspect() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count >= crashesInARow
}
