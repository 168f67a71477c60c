package worker

import (
	"slices"
	"sync"
	"time"

	"nodeagent/xray/ipc"
)

const (
	// eventPause is the shortest time between two messages with presence or closed slots alone. A
	// client that opens one connection after the other comes and goes with each of them. A message for
	// each of these changes costs the worker a tenth of its processor time. With one every 20 ms, a busy
	// host switches contexts once more for each connection. An event after a pause is sent at once. Each
	// change carries its own time.
	eventPause = 100 * time.Millisecond
	// maxJoined is how many changes one message has at most.
	maxJoined = 1000
	// maxWaiting is how many changes, notices and lines wait at most while there is no daemon. The
	// next daemon gets who is online anyway, so that beyond it the oldest are dropped.
	maxWaiting = 100_000
)

// messageQueue holds what waits for the daemon. It never blocks the caller: a daemon that reads
// slowly must not hold up traffic. A stream adds at most two changes of presence, so the queue
// grows no faster than clients come and go. While there is no daemon the messages wait for the next
// one, and answers are dropped.
type messageQueue struct {
	mu      sync.Mutex
	waiting []queued       // in their order; presence and closed slots in a row are one message
	size    int            // of all that waits
	dropped int            // since the last daemon asked
	conn    *ipc.FrameConn // to the daemon; nil while there is none
	closed  bool
	wake    chan struct{} // something waits
	urgent  chan struct{} // an answer or a notice waits, or the end
}

// queued is a message that waits.
type queued struct {
	ipc.Message
	to *ipc.FrameConn // of an answer: the connection that asked; nil for an event, which any daemon gets
}

// size is how many changes, notices or lines the message has.
func (m *queued) size() int { return max(1, len(m.Presence)+len(m.Closed)) }

func newMessageQueue() *messageQueue {
	return &messageQueue{wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// push adds an event. The queue may append to its slices.
func (q *messageQueue) push(m ipc.Message) { q.add(queued{m, nil}) }

// answer adds the answer to a request that came from a daemon.
func (q *messageQueue) answer(to *ipc.FrameConn, m ipc.Message) { q.add(queued{m, to}) }

func (q *messageQueue) add(m queued) {
	event := isEvent(m.Message)
	q.mu.Lock()
	q.size += m.size()
	if last := len(q.waiting) - 1; event && last >= 0 && joins(q.waiting[last], m.Message) {
		before := &q.waiting[last]
		before.Presence, before.Closed = append(before.Presence, m.Presence...), append(before.Closed, m.Closed...)
	} else {
		q.waiting = append(q.waiting, m)
	}
	if q.conn == nil {
		q.boundLocked()
	}
	q.mu.Unlock()
	q.signal(!event)
}

// boundLocked drops the oldest messages beyond maxWaiting.
func (q *messageQueue) boundLocked() {
	drop := 0
	for ; q.size > maxWaiting; drop++ {
		q.size -= q.waiting[drop].size()
		q.dropped += q.waiting[drop].size()
	}
	q.waiting = slices.Delete(q.waiting, 0, drop)
}

// isEvent reports whether m has presence or closed slots alone.
func isEvent(m ipc.Message) bool { return m.Presence != nil || m.Closed != nil }

// joins reports whether m can become a part of before: the daemon takes the presence of a
// message before its closed slots.
func joins(before queued, m ipc.Message) bool {
	return isEvent(before.Message) && before.size() < maxJoined && (before.Closed == nil || m.Presence == nil)
}

// attach sends to the daemon at conn from now on.
func (q *messageQueue) attach(conn *ipc.FrameConn) {
	q.mu.Lock()
	q.conn = conn
	q.mu.Unlock()
	q.signal(true)
}

// detach keeps the messages for the next daemon, after conn has ended.
func (q *messageQueue) detach(conn *ipc.FrameConn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.conn == conn {
		q.conn = nil
	}
}

// takeDropped returns how much was dropped since the last call.
func (q *messageQueue) takeDropped() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.dropped
	q.dropped = 0
	return n
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

// send sends until the queue is closed, and what waits then is sent or has no daemon.
func (q *messageQueue) send() {
	for range q.wake {
		q.mu.Lock()
		conn, closed := q.conn, q.closed
		var batch []queued
		if conn != nil {
			batch, q.waiting, q.size = q.waiting, nil, 0
		}
		q.mu.Unlock()
		for i, m := range batch {
			if m.to != nil && m.to != conn {
				continue // who asked is gone
			}
			if err := conn.Write(m.Message); err != nil {
				q.putBack(conn, batch[i:])
				break
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

// putBack keeps the messages that could not be sent to conn, before those that came later.
func (q *messageQueue) putBack(conn *ipc.FrameConn, unsent []queued) {
	_ = conn.Close() // half of a frame may have been sent
	q.mu.Lock()
	if q.conn == conn {
		q.conn = nil
	}
	events := slices.DeleteFunc(unsent, func(m queued) bool { return m.to != nil })
	for i := range events {
		q.size += events[i].size()
	}
	q.waiting = slices.Concat(events, q.waiting)
	again := q.conn != nil
	q.mu.Unlock()
	if again {
		q.signal(true)
	}
}
