package worker

import (
	"sync"
	"time"

	"nodeagent/xray/ipc"
)

// eventPause is the shortest time between two messages with presence or closed slots alone. A
// client that opens one connection after the other comes and goes with each of them: a message
// for each of these changes costs the worker a tenth of its processor time. An event after a
// pause is sent at once.
const eventPause = 20 * time.Millisecond

// messageQueue holds what waits for the daemon. It never blocks the caller: a daemon that reads
// slowly must not hold up traffic. A stream adds at most two changes of presence, so the queue
// grows no faster than clients come and go.
type messageQueue struct {
	mu      sync.Mutex
	waiting []ipc.Message // in their order; presence and closed slots in a row are one message
	closed  bool
	wake    chan struct{} // something waits
	urgent  chan struct{} // an answer or a notice waits, or the end
}

func newMessageQueue() *messageQueue {
	return &messageQueue{wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// push adds a message. The queue may append to its slices.
func (q *messageQueue) push(m ipc.Message) {
	event := isEvent(m)
	q.mu.Lock()
	if last := len(q.waiting) - 1; event && last >= 0 && joins(q.waiting[last], m) {
		before := &q.waiting[last]
		before.Presence, before.Closed = append(before.Presence, m.Presence...), append(before.Closed, m.Closed...)
	} else {
		q.waiting = append(q.waiting, m)
	}
	q.mu.Unlock()
	q.signal(!event)
}

// isEvent reports whether m has presence or closed slots alone.
func isEvent(m ipc.Message) bool { return m.Presence != nil || m.Closed != nil }

// joins reports whether m can become a part of before: the daemon takes the presence of a
// message before its closed slots.
func joins(before, m ipc.Message) bool {
	return isEvent(before) && (before.Closed == nil || m.Presence == nil)
}

func (q *messageQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal(true)
}

func (q *messageQueue) signal(urgent bool) {
	if urgent {
		raise(q.urgent)
	}
	raise(q.wake)
}

// raise fills a channel with one slot.
func raise(flag chan struct{}) {
	select {
	case flag <- struct{}{}:
	default:
	}
}

// drainTo sends until the queue is closed and empty, or the daemon is gone.
func (q *messageQueue) drainTo(conn *ipc.FrameConn) {
	for range q.wake {
		q.mu.Lock()
		batch, closed := q.waiting, q.closed
		q.waiting = nil
		q.mu.Unlock()
		for _, m := range batch {
			if err := conn.Write(m); err != nil {
				return
			}
		}
		if closed {
			return
		}
		select {
		case <-q.urgent:
		case <-time.After(eventPause):
		}
	}
}
