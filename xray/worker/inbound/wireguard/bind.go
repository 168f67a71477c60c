package wireguard

import (
	"fmt"
	gonet "net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/xtls/xray-core/common/buf"
	"golang.zx2c4.com/wireguard/conn"
)

const (
	// queuedBatches is how many batches of datagrams wait for the device. What comes meanwhile waits in the room
	// of its source (package datagrams).
	queuedBatches = 2
	// atOnce is how many packets the device handles at a time. Its queues count these, 1024 in each, and a packet
	// has a buffer of 64 KiB there (wireguard-go, device/queueconstants_default.go): with more at a time, a client
	// that answers nothing would hold as many times more memory.
	atOnce = 1
)

// bind hands the device the datagrams that xray-core's listeners receive, in their order: one function
// receives them, since TCP in the tunnel takes those that overtake others for a loss.
type bind struct {
	// arrived and sent get the first byte of each packet, its type, and may not wait.
	arrived, sent func(head byte, peer *endpoint)
	batches       chan batch
	ended         chan struct{} // with the device
	endOnce       sync.Once

	mu     sync.Mutex
	closed chan struct{} // from Open to Close
}

// batch has datagrams that came from one source at a time.
type batch struct {
	data buf.MultiBuffer
	from *endpoint
}

func newBind(arrived, sent func(byte, *endpoint)) *bind {
	return &bind{arrived: arrived, sent: sent, batches: make(chan batch, queuedBatches), ended: make(chan struct{})}
}

// received waits until there is room for the datagrams, which the device then owns.
func (b *bind) received(data buf.MultiBuffer, from *endpoint) {
	if data.IsEmpty() {
		return
	}
	for _, datagram := range data {
		if bytes := datagram.Bytes(); len(bytes) > 3 {
			clear(bytes[1:4]) // reserved; some clients send a mark in them
			b.arrived(bytes[0], from)
		}
	}
	select {
	case b.batches <- batch{data, from}:
	case <-b.ended:
		buf.ReleaseMulti(data)
	}
}

func (b *bind) end() { b.endOnce.Do(func() { close(b.ended) }) }

// Open implements conn.Bind.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	closed := make(chan struct{})
	b.closed = closed
	var now batch
	receive := func(bufs [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
		if len(now.data) == 0 {
			select {
			case now = <-b.batches:
			case <-closed:
				return 0, gonet.ErrClosed
			}
		}
		next := now.data[0]
		now.data[0], now.data = nil, now.data[1:]
		sizes[0], from[0] = copy(bufs[0], next.Bytes()), now.from
		next.Release()
		return 1, nil
	}
	return []conn.ReceiveFunc{receive}, port, nil
}

// Close implements conn.Bind.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		close(b.closed)
		b.closed = nil
	}
	return nil
}

// SetMark implements conn.Bind.
func (*bind) SetMark(uint32) error { return nil }

// BatchSize implements conn.Bind.
func (*bind) BatchSize() int { return atOnce }

// ParseEndpoint implements conn.Bind. Peers of an inbound come by themselves.
func (*bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	return nil, fmt.Errorf("an inbound's peer has no endpoint, and got %q", s)
}

// Send implements conn.Bind.
func (b *bind) Send(bufs [][]byte, to conn.Endpoint) error {
	peer, ok := to.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	for _, data := range bufs {
		if len(data) > 0 {
			b.sent(data[0], peer)
		}
		if _, err := peer.conn.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// endpoint is where a peer was seen last.
type endpoint struct {
	conn gonet.Conn
	at   netip.AddrPort

	answered atomic.Bool  // a packet of a session was sent there
	asked    atomic.Int64 // when Server.arrived began a handshake, in nanoseconds since 1970
}

func newEndpoint(conn gonet.Conn) (*endpoint, error) {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return nil, fmt.Errorf("read a peer's address: %w", err)
	}
	return &endpoint{conn: conn, at: netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}, nil
}

func (*endpoint) ClearSrc()             {}
func (*endpoint) SrcIP() netip.Addr     { return netip.Addr{} }
func (*endpoint) SrcToString() string   { return "" }
func (e *endpoint) DstIP() netip.Addr   { return e.at.Addr() }
func (e *endpoint) DstToString() string { return e.at.String() }

// DstToBytes is what cookies are made of.
func (e *endpoint) DstToBytes() []byte {
	bytes, _ := e.at.MarshalBinary() // never fails
	return bytes
}
