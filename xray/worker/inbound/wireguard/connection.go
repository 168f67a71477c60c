package wireguard

import (
	"errors"
	"fmt"
	"io"

	"github.com/xtls/xray-core/common/buf"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"
)

// readAtOnce is how many buffers of 8 KiB one read of a connection fills at most, as many as xray-core's
// reader of a socket (common/buf/readv_reader.go:25).
const readAtOnce = 8

// connection is a TCP connection in the tunnel. It reads what has come into buffers, and waits without one:
// xray-core's reader holds 8 KiB while it waits (common/buf/reader.go:28).
type connection struct {
	*gonet.TCPConn
	endpoint tcpip.Endpoint
	readable chan struct{} // gets a value when there may be something to read
	entry    waiter.Entry
}

func newConnection(queue *waiter.Queue, endpoint tcpip.Endpoint) *connection {
	c := &connection{TCPConn: gonet.NewTCPConn(queue, endpoint), endpoint: endpoint}
	c.entry, c.readable = waiter.NewChannelEntry(waiter.ReadableEvents)
	queue.EventRegister(&c.entry) // both end with the endpoint
	return c
}

// ReadMultiBuffer implements buf.Reader. One goroutine reads. It knows no deadlines.
func (c *connection) ReadMultiBuffer() (buf.MultiBuffer, error) {
	for {
		var into filled
		_, err := c.endpoint.Read(&into, tcpip.ReadOptions{})
		switch err.(type) {
		case nil:
			if n := int(into.mb.Len()); n > 0 {
				c.endpoint.ModerateRecvBuf(n)
				return into.mb, nil
			}
		case *tcpip.ErrWouldBlock:
		case *tcpip.ErrClosedForReceive:
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("read from a connection in the tunnel: %w", errors.New(err.String()))
		}
		<-c.readable
	}
}

// filled has the buffers that were filled. It is the io.Writer to which an endpoint gives its bytes.
type filled struct{ mb buf.MultiBuffer }

// Write takes less than it is given, with an error, once all buffers are full.
func (f *filled) Write(b []byte) (n int, err error) {
	for {
		last := len(f.mb) - 1
		if last >= 0 {
			some, _ := f.mb[last].Write(b[n:]) // it returns no error
			n += some
		}
		switch {
		case n == len(b):
			return n, nil
		case last+1 == readAtOnce:
			return n, io.ErrShortWrite
		}
		f.mb = append(f.mb, buf.New())
	}
}
