package xhttp

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/xtls/xray-core/transport/internet/finalmask"
	"golang.org/x/sys/unix"
)

const (
	// mostLate bounds the answers that wait on a connection as they are, in bytes. Later ones are
	// shortened to their status.
	mostLate = 16 << 10
	// mostShortened is the further room for shortened answers, in bytes. Equal ones after each other count once.
	mostShortened = 16 << 10
	// writtenAtOnce is how many answers that are equal are written together.
	writtenAtOnce = 64
	// lastWait is how long a connection that is being closed stays open for the answers that wait.
	lastWait = time.Second
)

// answers are those to the packets (packet-up) that come by a connection of HTTP/1.1. Stock Xray sends its
// packets without reading the answers, and reads none ever: it would where UnreadedResponsesCount is not 0,
// and never counts (transport/internet/splithttp/client.go:148). Go's server reads no request before the
// answer to the one before is written. Once the buffers of both sockets were full, after some thousand
// packets, or some hundred on a link with small segments, each session with a packet behind stood still.
// So an answer that the socket may not take at once waits here, and the next request is read.
//
// Nor does stock Xray close such a connection. It forgets it, the collector of garbage closes it later, and
// the answers that nobody has read make that a reset. Packets that have come by then are still to be read. So
// an answer that can't be written ends nothing: the end of what was sent does.
type answers struct {
	// ofPacket is set while the request that is served is a packet: its answer is a header alone. The goroutine
	// that serves the connection sets it and reads it. So does http.Transport's, which writes 100 (Continue) at
	// the first read of a body that goes to another worker.
	ofPacket atomic.Bool

	mu      sync.Mutex
	late    []lateAnswer
	size    int           // of what is in late, in bytes
	written chan struct{} // closed once late is written; nil where nothing is
	err     error         // of writing
}

// lateAnswer is an answer that waits, once or several times.
type lateAnswer struct {
	text  string
	times int
}

// write writes what the server has for the client. It waits for the client to read, but for the answers to
// packets.
func (a *answers) write(to net.Conn, p []byte) (int, error) {
	mayWait := a.ofPacket.Load() && isHeaderAlone(p)
	for {
		a.mu.Lock()
		written, err := a.written, a.err
		switch {
		case err != nil:
			a.mu.Unlock()
			if mayWait {
				return len(p), nil
			}
			return 0, err
		case mayWait && (written != nil || unacknowledged(to) != 0) && a.keep(p):
			if written == nil {
				a.written = make(chan struct{})
				go a.writeLate(to)
			}
			a.mu.Unlock()
			return len(p), nil
		case written == nil:
			a.mu.Unlock()
			n, err := to.Write(p)
			if mayWait && err != nil {
				a.fail(err)
				return len(p), nil
			}
			return n, err
		}
		a.mu.Unlock()
		<-written
	}
}

// outlive returns a context for a packet, which ends patience after that of its connection.
func outlive(of context.Context) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(of))
	stop := context.AfterFunc(of, func() { time.AfterFunc(patience, cancel) })
	return ctx, func() { stop(); cancel() }
}

// keep puts an answer behind those that wait, if there is room. mu is held.
func (a *answers) keep(p []byte) bool {
	text := string(p)
	if a.size+len(p) > mostLate {
		text = shortened(text)
		if last := len(a.late) - 1; last >= 0 && a.late[last].text == text {
			a.late[last].times++
			return true
		}
	}
	if a.size+len(text) > mostLate+mostShortened {
		return false
	}
	a.late = append(a.late, lateAnswer{text, 1})
	a.size += len(text)
	return true
}

// writeLate writes the answers that wait. It ends with the connection, or once none waits.
func (a *answers) writeLate(to net.Conn) {
	for {
		a.mu.Lock()
		if len(a.late) == 0 || a.err != nil {
			a.late, a.size = nil, 0
			close(a.written)
			a.written = nil
			a.mu.Unlock()
			return
		}
		first := &a.late[0]
		times := min(first.times, writtenAtOnce)
		text := first.text
		if first.times -= times; first.times == 0 {
			a.late, a.size = a.late[1:], a.size-len(text)
		}
		a.mu.Unlock()
		if _, err := to.Write([]byte(strings.Repeat(text, times))); err != nil {
			a.fail(err)
		}
	}
}

// settle waits until no answer waits, lastWait at most, and reports whether none does. Go's server closes a
// connection right after an answer that is its last one (Connection: close).
func (a *answers) settle() bool {
	a.mu.Lock()
	written := a.written
	a.mu.Unlock()
	if written == nil {
		return true
	}
	late := time.NewTimer(lastWait)
	defer late.Stop()
	select {
	case <-written:
		return true
	case <-late.C:
		return false
	}
}

func (a *answers) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

const endOfHeader = "\r\n\r\n"

// isHeaderAlone tells a whole answer without a body. Go's server writes one at once where it is not longer than
// 4 KB (net/http/server.go, newBufioWriterSize).
func isHeaderAlone(p []byte) bool {
	return bytes.HasPrefix(p, []byte("HTTP/1.1 ")) && bytes.Index(p, []byte(endOfHeader)) == len(p)-len(endOfHeader) && bytes.Contains(p, []byte("\r\nContent-Length: 0\r\n"))
}

// shortened is an answer without a body, and with the status alone.
func shortened(answer string) string {
	status, _, _ := strings.Cut(answer, "\r\n")
	return status + "\r\nContent-Length: 0" + endOfHeader
}

// unacknowledged returns how many bytes the socket of a connection has that the other side has not got, and
// a negative number where nobody knows. A unix socket has them until they are read.
func unacknowledged(conn net.Conn) int {
	for {
		switch inner := conn.(type) {
		case syscall.Conn:
			raw, err := inner.SyscallConn()
			if err != nil {
				return -1
			}
			n := -1
			if err := raw.Control(func(fd uintptr) {
				if n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil {
					n = -1
				}
			}); err != nil {
				return -1
			}
			return n
		case interface{ NetConn() net.Conn }: // TLS and REALITY
			conn = inner.NetConn()
		case interface{ Raw() net.Conn }: // *proxyproto.Conn, which writes to the socket
			conn = inner.Raw()
		case finalmask.TcpMaskConn:
			if !inner.Splice() { // it changes what is written, and may take its time
				return -1
			}
			conn = inner.RawConn()
		default:
			return -1
		}
	}
}
