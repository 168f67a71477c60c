package pulse

import (
	"fmt"
	"sync"
	"time"
)

// Monitor knows what the loops of a program do. Its zero value has no loops. All methods of this
// package may be called by several goroutines at once.
type Monitor struct {
	mu    sync.Mutex
	beats map[*Beat]struct{}
}

// Beat is one thing that goes on. A Beat that is nil does nothing.
type Beat struct {
	monitor *Monitor
	what    string
	since   time.Time
	limit   time.Duration // 0 for no limit
}

// Begin notes that something begins, of which each step takes at most limit. End notes its end.
func (m *Monitor) Begin(what string, limit time.Duration) *Beat {
	b := &Beat{monitor: m}
	m.mu.Lock()
	if m.beats == nil {
		m.beats = map[*Beat]struct{}{}
	}
	m.beats[b] = struct{}{}
	m.mu.Unlock()
	b.Do(what, limit)
	return b
}

// Do notes that the step before is done, and that another thing goes on now. A limit of 0 is for
// what cannot hang, and for what other Beats watch.
func (b *Beat) Do(what string, limit time.Duration) {
	if b == nil {
		return
	}
	b.monitor.mu.Lock()
	defer b.monitor.mu.Unlock()
	b.what, b.since, b.limit = what, time.Now(), limit
}

// Step notes that a step is done, and that the same thing goes on.
func (b *Beat) Step() {
	if b == nil {
		return
	}
	b.monitor.mu.Lock()
	defer b.monitor.mu.Unlock()
	b.since = time.Now()
}

// End notes that it is over.
func (b *Beat) End() {
	if b == nil {
		return
	}
	b.monitor.mu.Lock()
	defer b.monitor.mu.Unlock()
	delete(b.monitor.beats, b)
}

// Stuck says which step has taken longer than it can, and for how long; it is empty where there
// is none.
func (m *Monitor) Stuck() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var worst *Beat
	for b := range m.beats {
		if b.limit > 0 && now.Sub(b.since) > b.limit && (worst == nil || b.since.Before(worst.since)) {
			worst = b
		}
	}
	if worst == nil {
		return ""
	}
	return fmt.Sprintf("%s has gone on for %s without a step; it takes at most %s", worst.what, now.Sub(worst.since).Round(time.Second), worst.limit)
}
