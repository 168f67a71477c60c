package listen

import (
	"sync"
	"time"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/stat"
)

// Idle is how long a connection of an HTTP carrier may be without a request or stream. Clients
// give up theirs earlier (net.ConnIdleTimeout of xray-core, 300 s), so that none sends a request
// on a connection that ends. It is a variable for tests.
var Idle = 6 * time.Minute

// handshakeAtLeast is how long the handshake inside of a carrier may take. A policy says 4 s by
// default, which was never enforced, and the first request may be lost once.
const handshakeAtLeast = 30 * time.Second

// Deadlines makes a deadline of reading close a connection. xray-core's connections over gRPC
// and XHTTP ignore it (common/net/cnc/connection.go:130,
// transport/internet/splithttp/connection.go:57): a client that knew the path and sent no
// handshake stayed for ever.
func Deadlines(handle internet.ConnHandler) internet.ConnHandler {
	return func(conn stat.Connection) {
		bounded := &deadlineConn{Connection: conn}
		reader, reads := conn.(buf.Reader)
		writer, writes := conn.(buf.Writer)
		if reads && writes {
			handle(&multiBufferConn{bounded, reader, writer})
			return
		}
		handle(bounded)
	}
}

// multiBufferConn is a deadlineConn that is a buf.Reader and a buf.Writer, as the connection in
// it.
type multiBufferConn struct {
	*deadlineConn
	buf.Reader
	buf.Writer
}

// deadlineConn closes itself at its deadline of reading. mu guards timer.
type deadlineConn struct {
	stat.Connection

	mu    sync.Mutex
	timer *time.Timer // nil without a deadline
}

// SetReadDeadline closes the connection at the time, but not within the next 30 seconds. The
// zero time stands for never.
func (c *deadlineConn) SetReadDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if !at.IsZero() {
		c.timer = time.AfterFunc(max(time.Until(at), handshakeAtLeast), func() { _ = c.Connection.Close() })
	}
	return nil
}

// Close stops the timer besides.
func (c *deadlineConn) Close() error {
	_ = c.SetReadDeadline(time.Time{})
	return c.Connection.Close()
}

var _ net.Conn = (*multiBufferConn)(nil)
