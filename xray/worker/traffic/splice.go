package traffic

import (
	"context"
	"errors"
	"fmt"
	gonet "net"
	"os"
	"reflect"
	"syscall"
	"time"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/stat"
	"github.com/xtls/xray-core/transport/pipe"
)

// Values of session.Inbound.CanSpliceCopy.
const (
	canSplice   = 1 // the client's socket takes the target's bytes as they are
	spliceLater = 2 // with Vision: as soon as Vision has left its padding
	noSplice    = 3
)

// activityEvery is how often a stream's bytes are read and written, and not spliced, so
// that xray-core notices that the stream is not idle. The shortest idle time of a policy is
// a second.
const activityEvery = 250 * time.Millisecond

// splices tells whether the stream may be spliced now or later. xray-core's freedom outbound
// must write what it reads to the stream's client with nothing in between: no pipe, no other
// outbound of a chain, no mux.
func (s *stream) splices(link *transport.Link) bool {
	if s.inbound == nil || link.Writer != buf.Writer(&s.down) {
		return false
	}
	if s.inbound.CanSpliceCopy == noSplice {
		s.bare = bareSocket(s.writer)
		return s.bare != nil
	}
	_, piped := s.writer.(*pipe.Writer)
	return !piped
}

// bareSocket returns the socket to which an inbound's writer writes as it is told, after the first call, in which the
// inbound may write a head of its own; nil where it does not. VLESS has such a writer without TLS.
func bareSocket(writer buf.Writer) *gonet.TCPConn {
	if buffered, is := writer.(*buf.BufferedWriter); is { // it buffers the head alone (BufferedWriter.SetFlushNext)
		inner := reflect.ValueOf(buffered).Elem().FieldByName("writer")
		if !inner.IsValid() || inner.Kind() != reflect.Interface || inner.IsNil() || inner.Elem().Type() != reflect.TypeFor[*buf.BufferToBytesWriter]() {
			return nil
		}
		writer = (*buf.BufferToBytesWriter)(inner.Elem().UnsafePointer())
	}
	toBytes, is := writer.(*buf.BufferToBytesWriter)
	if !is {
		return nil
	}
	conn, is := toBytes.Writer.(gonet.Conn)
	if !is || !proxy.IsRAWTransportWithoutSecurity(conn) {
		return nil
	}
	raw, _, _ := proxy.UnwrapRawConn(conn)
	socket, _ := raw.(*gonet.TCPConn)
	return socket
}

// buffers reports whether an inbound's writer may have bytes that it has not written yet: VLESS's head waits for the
// first bytes of the target.
func buffers(writer buf.Writer) bool {
	buffered, is := writer.(*buf.BufferedWriter)
	if !is {
		return false
	}
	now := reflect.ValueOf(buffered).Elem().FieldByName("buffered")
	return !now.IsValid() || now.Kind() != reflect.Bool || now.Bool()
}

// clientSocket returns the socket to which spliced bytes go, or nil for none. TLS may lie above
// it only if Vision has taken it away.
func (s *stream) clientSocket() *gonet.TCPConn {
	if s.bare != nil {
		return s.bare
	}
	if s.conn == nil || s.inbound.Name != "vless" && !proxy.IsRAWTransportWithoutSecurity(s.conn) {
		return nil
	}
	raw, _, _ := proxy.UnwrapRawConn(s.conn)
	socket, _ := raw.(*gonet.TCPConn)
	return socket
}

// splicingDialer makes the connections of one stream to its target splice.
type splicingDialer struct {
	internet.Dialer
	stream *stream
}

// Dial returns a *splicedConn for a plain TCP connection, and others as they are.
func (d *splicingDialer) Dial(ctx context.Context, to net.Destination) (stat.Connection, error) {
	conn, err := d.Dialer.Dial(ctx, to)
	if err != nil || to.Network != net.Network_TCP || !proxy.IsRAWTransportWithoutSecurity(conn) {
		return conn, err
	}
	raw, counted, _ := proxy.UnwrapRawConn(conn)
	socket, isTCP := raw.(*gonet.TCPConn)
	if !isTCP || counted != nil {
		return conn, nil
	}
	target, err := socket.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("splice from %s: %w", to, err), conn.Close())
	}
	return &splicedConn{Connection: conn, stream: d.stream, reader: readerOf(socket), writer: buf.NewWriter(conn), target: target}, nil
}

// splicedConn is a stream's connection to its target. xray-core's freedom outbound copies from
// it with buf.Copy, which calls ReadMultiBuffer. While the client's socket takes the bytes as
// they are, ReadMultiBuffer lets the kernel move them, in steps, and counts each step before
// the client gets it. Otherwise it returns what it read.
//
// xray-core's own proxy.CopyRawConnIfExist moves all bytes in one call, and counts them at its
// end.
//
// One goroutine reads. Another one may write.
type splicedConn struct {
	stat.Connection
	stream  *stream
	reader  buf.Reader
	writer  buf.Writer
	target  syscall.RawConn
	mover   *mover       // nil until bytes may be spliced
	never   bool         // the client has no socket to splice to
	records wholeRecords // while Vision pads
	copied  time.Time    // when ReadMultiBuffer last returned bytes
}

// WriteMultiBuffer writes to the target.
func (c *splicedConn) WriteMultiBuffer(mb buf.MultiBuffer) error {
	return c.writer.WriteMultiBuffer(mb)
}

// ReadMultiBuffer returns bytes of the target that the caller has to write to the client. It
// moves others to the client itself. It returns io.EOF after the last byte.
func (c *splicedConn) ReadMultiBuffer() (buf.MultiBuffer, error) {
	if !c.ready() {
		return c.read()
	}
	defer c.mover.release()
	for {
		err := c.step()
		if errors.Is(err, errNotNow) {
			return c.read()
		}
		if err != nil {
			return nil, err
		}
	}
}

// ready tells whether bytes may be spliced now. Vision changes CanSpliceCopy in the goroutine
// that calls this: when it writes what ReadMultiBuffer has returned.
func (c *splicedConn) ready() bool {
	if c.mover != nil {
		return true
	}
	if c.never || c.stream.inbound.CanSpliceCopy != canSplice && c.stream.bare == nil || !c.records.held.IsEmpty() {
		return false
	}
	if c.stream.bare != nil && buffers(c.stream.writer) {
		return false
	}
	socket := c.stream.clientSocket()
	if socket == nil {
		c.never = true
		return false
	}
	client, err := socket.SyscallConn()
	if err != nil {
		c.never = true
		return false
	}
	c.mover = newMover(c.target, client)
	c.stream.spliced.Store(socket)
	return true
}

// read returns bytes that are not spliced. While Vision pads, they end with a TLS record.
func (c *splicedConn) read() (buf.MultiBuffer, error) {
	if c.records.done && !c.records.held.IsEmpty() {
		return c.records.rest(), nil
	}
	if c.stream.inbound.CanSpliceCopy == spliceLater && !c.records.done {
		return c.readRecords()
	}
	mb, err := c.reader.ReadMultiBuffer()
	c.copied = time.Now()
	return mb, err
}

// readRecords reads until there are whole records, or what wholeRecords passes on without.
func (c *splicedConn) readRecords() (buf.MultiBuffer, error) {
	defer c.SetReadDeadline(time.Time{}) //nolint:errcheck // a closed connection fails the next read
	for {
		if !c.records.held.IsEmpty() {
			if err := c.SetReadDeadline(c.records.since.Add(heldLongest)); err != nil {
				return c.records.rest(), err
			}
		}
		mb, err := c.reader.ReadMultiBuffer()
		mb = c.records.cut(mb, err != nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil // it is the deadline from above, and nothing is held any more
		}
		if !mb.IsEmpty() || err != nil {
			return mb, err
		}
	}
}

// step waits for bytes of the target, counts them and moves them to the client.
func (c *splicedConn) step() error {
	most := pipeSize
	if g := c.stream.group.Load(); g != nil {
		if g.down.Load() != nil {
			most = minBurst
		}
		most = g.most(most)
	}
	n, err := c.mover.fill(most, c.copied.Add(activityEvery))
	if err != nil {
		return err
	}
	if err := c.stream.pass(n); err != nil {
		return err
	}
	return c.mover.empty()
}
