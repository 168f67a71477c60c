package hub

import (
	"maps"
	"time"
)

const (
	// atOnce is how many nodes are woken without delay, and tick how long it takes until that many
	// are again. Beyond them nodes are woken in steps, one each tick: a change of all nodes would
	// let all of them ask in the same instant.
	atOnce = 16
	tick   = 10 * time.Millisecond
	// perTick is how many nodes one step wakes at least, and ticks in how many steps all that wait
	// are woken at most.
	perTick = 20
	ticks   = 100
	// calm is the time between two wakes of one node: a burst of edits becomes one document.
	calm = 250 * time.Millisecond
)

// spread has the nodes that are to be woken. Hub.mu guards it.
type spread struct {
	due     map[int64]time.Time // not before that time
	order   []int64             // the keys of due, as they came; may have keys that are gone
	most    int                 // the length of order since it was empty
	running bool                // a tick is to come
	woken   map[int64]time.Time // within the last calm, and some from before
	quick   int                 // woken without delay since since
	since   time.Time
}

// Changed wakes the heartbeats of the nodes with these ids. Call it after the change is committed: a
// woken node fetches its configuration at once. A few nodes are woken at once, and many spread over a
// second. A node that was woken a moment ago is woken when that moment is over.
func (h *Hub) Changed(nodes ...int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, now := &h.spread, time.Now()
	if now.Sub(s.since) > tick {
		s.quick, s.since = 0, now
	}
	if len(s.woken) > 1<<12 {
		maps.DeleteFunc(s.woken, func(_ int64, at time.Time) bool { return now.Sub(at) > calm })
	}
	for _, id := range nodes {
		if h.changed[id] == nil { // nobody waits
			continue
		}
		if _, waits := s.due[id]; waits {
			continue
		}
		notBefore := s.woken[id].Add(calm)
		if s.quick < atOnce && len(s.due) == 0 && !notBefore.After(now) {
			s.quick++
			h.wakeLocked(id, now)
			continue
		}
		s.due[id] = notBefore
		s.order = append(s.order, id)
		s.most = max(s.most, len(s.order))
	}
	if len(s.due) > 0 && !s.running {
		s.running = true
		time.AfterFunc(tick, h.step)
	}
}

// step wakes the next nodes.
func (h *Hub) step() {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, now := &h.spread, time.Now()
	left := max(perTick, (s.most+ticks-1)/ticks)
	later := s.order[:0]
	for _, id := range s.order {
		due, waits := s.due[id]
		switch {
		case !waits:
		case left == 0 || due.After(now):
			later = append(later, id)
		default:
			left--
			delete(s.due, id)
			h.wakeLocked(id, now)
		}
	}
	s.order = later
	if s.running = len(s.order) > 0; s.running {
		time.AfterFunc(tick, h.step)
		return
	}
	s.order, s.most = nil, 0
}

func (h *Hub) wakeLocked(id int64, now time.Time) {
	close(h.changed[id])
	delete(h.changed, id)
	h.spread.woken[id] = now
}

// Next returns a channel that is closed at the node's next change. Call it before reading the
// node's revision: a change between the two closes the channel. A change before the call does not
// close it, also where that change has not woken the node yet.
func (h *Hub) Next(node int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, waits := h.spread.due[node]; waits {
		delete(h.spread.due, node)
		h.wakeLocked(node, time.Now()) // an earlier heartbeat of the node, if it is still there
	}
	if h.changed[node] == nil {
		h.changed[node] = make(chan struct{})
	}
	return h.changed[node]
}
