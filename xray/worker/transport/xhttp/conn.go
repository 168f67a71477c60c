package xhttp

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a client's connection, above TLS. It can tell a client of HTTP/2 to open another one for its
// next requests: Go's server does so in one step, and the requests that are on their way then are lost.
type conn struct {
	net.Conn
	only2  bool // the client has chosen HTTP/2 in the handshake of TLS
	seen   int  // bytes of preface that were read, or its length once it is decided. One goroutine reads first
	http2  atomic.Bool
	held   atomic.Bool // see listener.hold
	closed func(*conn)
	unread atomic.Bool // a request of HTTP/1.1 was not read to its end, and nothing is read after it
	// answers are those of HTTP/1.1.
	answers answers

	mu      sync.Mutex // of writes
	frames  frames
	pending bool // goAway was called, and its frame is not written yet
}

// preface is how a client of HTTP/2 begins (RFC 9113 section 3.4).
const preface = "PRI"

var errNoPreface = errors.New("the client has chosen HTTP/2, and does not speak it")

// Read returns an error once a request was not read to its end: Go's server would take the rest for the next
// request.
func (c *conn) Read(p []byte) (int, error) {
	if c.unread.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.Conn.Read(p)
	for i := 0; i < n && c.seen < len(preface); i++ {
		if p[i] != preface[c.seen] {
			if c.seen = len(preface); c.only2 {
				return 0, errNoPreface
			}
			break
		}
		if c.seen++; c.seen == len(preface) {
			c.http2.Store(true)
		}
	}
	return n, err
}

func (c *conn) Write(p []byte) (n int, err error) {
	if !c.http2.Load() {
		return c.answers.write(c.Conn, p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending {
		n = c.frames.advance(p, true)
		if n > 0 {
			if n, err = c.Conn.Write(p[:n]); err != nil {
				return n, err
			}
		}
		if c.frames.between() {
			if err := c.writeGoAway(); err != nil {
				return n, err
			}
		}
		if n == len(p) {
			return n, nil
		}
	}
	c.frames.advance(p[n:], false)
	more, err := c.Conn.Write(p[n:])
	return n + more, err
}

// goAway asks a client of HTTP/2 to send its next requests over another connection. Those that are on
// their way are served. It may wait for the client to read.
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending = true; c.frames.between() {
		_ = c.writeGoAway()
	}
}

func (c *conn) writeGoAway() error {
	c.pending = false
	_, err := c.Conn.Write(goAwayFrame[:])
	return err
}

// Close lets the answers that wait be written first.
func (c *conn) Close() error {
	c.answers.settle()
	c.closed(c)
	return c.Conn.Close()
}

// CloseWrite is for http.Server, which closes half of a connection whose request it has not read whole. It lets
// the answers that wait be written first. Where the client reads none of them, they are given up: TLS says that
// it ends once no other write goes on (crypto/tls/conn.go, closeNotify).
func (c *conn) CloseWrite() error {
	if !c.answers.settle() {
		_ = c.SetWriteDeadline(time.Unix(1, 0))
	}
	if half, can := c.Conn.(interface{ CloseWrite() error }); can {
		return half.CloseWrite()
	}
	return nil
}

const frameHead = 9 // RFC 9113 section 4.1

// Types and flags of frames (RFC 9113 section 6).
const (
	typeHeaders      = 1
	typePushPromise  = 5
	typeGoAway       = 7
	typeContinuation = 9
	flagEndHeaders   = 4
)

// goAwayFrame is the first of the two that end a connection without a loss (RFC 9113 section 6.8): no
// stream is refused.
var goAwayFrame = [frameHead + 8]byte{2: 8, 3: typeGoAway, 9: 0x7f, 10: 0xff, 11: 0xff, 12: 0xff}

// frames follows the frames of HTTP/2 that are written.
type frames struct {
	head  [frameHead]byte
	have  int  // bytes of head
	left  int  // bytes of the frame that are still to come after its head
	begun bool // there was a frame: the first one has to be the server's settings (section 3.4)
	block bool // headers go on in the next frame, and no other one may come between them (section 4.3)
}

// between reports whether another frame may be written now.
func (f *frames) between() bool { return f.begun && f.have == 0 && f.left == 0 && !f.block }

// advance follows p and returns its length, or, where stop is true, how much of it comes before another
// frame may be written.
func (f *frames) advance(p []byte, stop bool) (n int) {
	for n < len(p) && (!stop || !f.between()) {
		if f.left > 0 {
			k := min(f.left, len(p)-n)
			f.left -= k
			n += k
			continue
		}
		k := copy(f.head[f.have:], p[n:])
		f.have += k
		n += k
		if f.have < frameHead {
			continue
		}
		f.have, f.begun = 0, true
		f.left = int(binary.BigEndian.Uint32(f.head[:4]) >> 8)
		if kind := f.head[3]; kind == typeHeaders || kind == typePushPromise || kind == typeContinuation {
			f.block = f.head[4]&flagEndHeaders == 0
		}
	}
	return n
}

// conns are the connections of a listener.
type conns struct {
	net.Listener
	none func() // called after the last one has ended

	mu      sync.Mutex
	open    map[*conn]struct{}
	leaving bool // goAway was called
}

func (c *conns) Accept() (net.Conn, error) {
	inner, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	accepted := &conn{Conn: inner, closed: c.remove}
	if secure, is := inner.(interface{ NegotiatedProtocol() string }); is {
		accepted.only2 = secure.NegotiatedProtocol() == "h2"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[*conn]struct{}{}
	}
	c.open[accepted] = struct{}{}
	accepted.pending = c.leaving
	return accepted, nil
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

func (c *conns) remove(conn *conn) {
	c.mu.Lock()
	delete(c.open, conn)
	left := len(c.open)
	c.mu.Unlock()
	if conn.held.Swap(false) {
		held.Add(-1)
	}
	if left == 0 {
		c.none()
	}
}

// goAway asks all clients of HTTP/2 to use other connections.
func (c *conns) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	for conn := range c.open {
		go conn.goAway()
	}
}

// held is how many connections of HTTP/1.1 this process should not end, in all listeners.
var held atomic.Int64

// hold notes that a connection of HTTP/1.1 carried a request. Its client may keep it for the next one, and
// stock Xray's does not notice where the server has closed it (transport/internet/splithttp/client.go:151):
// the request that it sends then is lost.
func (c *conns) hold(conn *conn) {
	if conn.held.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, open := c.open[conn]; open && !conn.held.Swap(true) {
		held.Add(1)
	}
}
