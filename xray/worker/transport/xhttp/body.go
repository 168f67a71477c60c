package xhttp

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The states of a heldBody.
const (
	bodyHeld int32 = iota // nothing was read
	bodyRead
	bodyKept // nothing was read, nor will be
)

// heldBody is a client's body that goes to another worker once that takes the request.
type heldBody struct {
	from   io.Reader
	client *http.ResponseController
	conn   *conn // nil but for a client of HTTP/1.1
	state  atomic.Int32
	ended  atomic.Bool
	broken atomic.Bool // the connection with the other worker has ended
}

func (b *heldBody) Read(p []byte) (int, error) {
	if !b.state.CompareAndSwap(bodyHeld, bodyRead) && b.state.Load() == bodyKept || b.broken.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.from.Read(p)
	if err != nil {
		b.ended.Store(true)
	}
	return n, err
}

// Close leaves the client's body open: the server closes it.
func (*heldBody) Close() error { return nil }

// keep reports whether nothing was read. Then nothing will be.
func (b *heldBody) keep() bool {
	return b.state.CompareAndSwap(bodyHeld, bodyKept) || b.state.Load() == bodyKept
}

// stop ends a read of the body that waits for the client, if one does.
func (b *heldBody) stop() {
	if b.ended.Load() {
		return
	}
	if b.conn != nil {
		b.conn.unread.Store(true)
	}
	_ = b.client.SetReadDeadline(time.Unix(1, 0))
}

// stopRead is stop where the body was read.
func (b *heldBody) stopRead() {
	if b.state.Load() == bodyRead {
		b.stop()
	}
}

// atBreak is called when the connection with the other worker has ended. http.Transport waits for the end of
// a read of the body, and so for the client, before it returns an error (net/http/transport.go,
// persistConn.mapRoundTripError).
func (b *heldBody) atBreak() {
	b.broken.Store(true)
	b.stopRead()
}

// workerConn is a connection with another worker. It tells the body that goes over it when it ends.
type workerConn struct {
	net.Conn

	mu    sync.Mutex
	body  *heldBody
	ended bool
}

func (c *workerConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p) // http.Transport always reads
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ended = true; c.body != nil {
			c.body.atBreak()
		}
	}
	return n, err
}

// carries notes that a body goes over the connection, or none where body is nil. After it has returned, no
// other body is told.
func (c *workerConn) carries(body *heldBody) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.body = body; body != nil {
		if body.broken.Store(c.ended); c.ended {
			body.stopRead()
		}
	}
}
