package worker

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	xlog "github.com/xtls/xray-core/common/log"

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

// lineLog writes xray-core's warnings and errors. xray-core calls it on the
// path of the traffic, so the less severe messages, which come with every
// connection, are dropped before they are formatted.
type lineLog struct {
	mu  sync.Mutex
	out io.Writer
}

// unsaid are words of xray-core's about what is as it should be.
var unsaid = []string{
	"ignoring invalid OCSP",          // nobody asked for an answer: see certificateFiles
	"failed to serve HTTP for XHTTP", // it is not to: see borrowHandler
}

func (l *lineLog) Handle(message xlog.Message) {
	general, ok := message.(*xlog.GeneralMessage)
	if !ok || general.Severity > xlog.Severity_Warning {
		return
	}
	line := strings.ReplaceAll(fmt.Sprintf("%v", general.Content), "\n", " | ")
	if slices.ContainsFunc(unsaid, func(words string) bool { return strings.Contains(line, words) }) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintf(l.out, "%s: %s\n", strings.ToLower(general.Severity.String()), line)
}
