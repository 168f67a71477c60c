package worker

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"time"

	xerrors "github.com/xtls/xray-core/common/errors"
	"golang.org/x/sys/unix"
)

// listeners has the sockets that xray-core makes to listen on: it tells nobody when
// one listens, and does not promise to close them when it is told to.
var listeners listenerLog

// listenerLog keeps the TCP sockets that are made while it records.
type listenerLog struct {
	mu        sync.Mutex
	recording bool
	made      []listener
}

// listener is a socket that is to listen, whoever closes it.
type listener struct{ conn syscall.RawConn }

// note is xray-core's controller: it is called before the socket is bound.
func (l *listenerLog) note(network, _ string, conn syscall.RawConn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recording && strings.HasPrefix(network, "tcp") {
		l.made = append(l.made, listener{conn})
	}
	return nil
}

// record begins anew.
func (l *listenerLog) record() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recording, l.made = true, nil
}

// stop returns what was made since record.
func (l *listenerLog) stop() []listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	made := l.made
	l.recording, l.made = false, nil
	return made
}

// listening is how many of those that were made listen.
func (l *listenerLog) listening() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, made := range l.made {
		if made.listens() {
			n++
		}
	}
	return n
}

const (
	// listenWait bounds the wait for a handler that was started to listen, before the
	// one that it replaces ends.
	listenWait = time.Second
	listenLook = time.Millisecond
)

// await returns once n sockets listen.
func (l *listenerLog) await(n int) {
	for deadline := time.Now().Add(listenWait); l.listening() < n; time.Sleep(listenLook) {
		if time.Now().After(deadline) {
			xerrors.LogWarning(context.Background(), "of ", n, " sockets of an inbound ", l.listening(), " listen after ", listenWait.String())
			return
		}
	}
}

// listens is false of one that is closed.
func (l listener) listens() bool {
	accepts := 0
	err := l.conn.Control(func(fd uintptr) {
		accepts, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) // no TCP socket is without
	})
	return err == nil && accepts == 1
}

// silence ends the listening, and leaves the socket to its owner to be closed.
func (l listener) silence() {
	_ = l.conn.Control(func(fd uintptr) { // an error means that it is closed
		_ = unix.Shutdown(int(fd), unix.SHUT_RDWR)
	})
}
