package worker

import (
	"sync"

	"nodeagent/xray/ipc"
)

// messageQueue holds what waits for the daemon. It never blocks who tells: a
// daemon that reads slowly must not hold up traffic. Two messages a client and
// address are all that a stream can add, so it grows no faster than clients
// come and go.
type messageQueue struct {
	mu      sync.Mutex
	waiting []ipc.Message
	closed  bool
	wake    chan struct{}
}

func newMessageQueue() *messageQueue {
	return &messageQueue{wake: make(chan struct{}, 1)}
}

func (q *messageQueue) push(m ipc.Message) {
	q.mu.Lock()
	q.waiting = append(q.waiting, m)
	q.mu.Unlock()
	q.signal()
}

func (q *messageQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *messageQueue) signal() {
	select {
	case q.wake <- struct{}{}:
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
	}
}
