package shadowsocks

import (
	"errors"
	"io"
	gonet "net"
	"sync"

	singbuf "github.com/sagernet/sing/common/buf"
	"github.com/sagernet/sing/common/metadata"
	"github.com/sagernet/sing/common/network"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/singbridge"
)

// udpWaiting is how many datagrams of a client wait for a way out that is slow, before
// more are dropped.
const udpWaiting = 64

// packetLink is a client's datagrams as xray-core moves them. The library's reader
// must not wait for a way out that is slow: it serves others too. What comes meanwhile
// is dropped.
type packetLink struct {
	conn     network.PacketConn
	to       net.Destination // what the first one asks for
	headroom int
	waiting  chan *buf.Buffer
	ended    chan struct{}
	endOnce  sync.Once
}

func newPacketLink(conn network.PacketConn, to net.Destination) *packetLink {
	w := &packetLink{
		conn: conn, to: to, headroom: network.CalculateFrontHeadroom(conn) + network.CalculateRearHeadroom(conn),
		waiting: make(chan *buf.Buffer, udpWaiting), ended: make(chan struct{}),
	}
	go w.receive()
	return w
}

func (w *packetLink) receive() {
	defer empty(w.conn)
	defer w.end()
	for {
		packet := singbuf.NewPacket()
		to, err := w.conn.ReadPacket(packet)
		if err != nil && !errors.Is(err, io.EOF) {
			packet.Release()
			return
		}
		destination, invalid := singbridge.ToDestination(to, net.Network_UDP)
		if err != nil || invalid != nil || !destination.IsValid() {
			packet.Release() // an empty one, or to a name that is none
			continue
		}
		b := buf.FromBytes(append([]byte(nil), packet.Bytes()...))
		packet.Release()
		b.UDP = &destination
		select {
		case w.waiting <- b:
		default:
		}
	}
}

// emptyReads are reads of a closed connection that gave nothing, after which it has
// nothing: the library picks at random between what waits and the end.
const emptyReads = 64

// empty closes a client's datagrams and takes what waits there. The library hands over
// without looking whether anybody reads: with no room it would wait for ever, and hold
// the keys still.
func empty(conn network.PacketConn) {
	_ = conn.Close()
	packet := singbuf.NewPacket()
	defer packet.Release()
	for nothing := 0; nothing < emptyReads; nothing++ {
		packet.Reset()
		if _, err := conn.ReadPacket(packet); err == nil || errors.Is(err, io.EOF) { // EOF: it was empty itself
			nothing = 0
		}
	}
}

func (w *packetLink) end() {
	w.endOnce.Do(func() {
		close(w.ended)
		_ = w.conn.Close()
	})
}

// ReadMultiBuffer implements buf.Reader.
func (w *packetLink) ReadMultiBuffer() (buf.MultiBuffer, error) {
	select {
	case b := <-w.waiting:
		return buf.MultiBuffer{b}, nil
	case <-w.ended:
		return nil, io.EOF
	}
}

// Interrupt implements common.Interruptible.
func (w *packetLink) Interrupt() { w.end() }

// WriteMultiBuffer implements buf.Writer.
func (w *packetLink) WriteMultiBuffer(mb buf.MultiBuffer) error {
	defer buf.ReleaseMulti(mb)
	for _, b := range mb {
		from := w.to
		if b.UDP != nil {
			from = *b.UDP
		}
		packet := singbuf.NewSize(w.headroom + int(b.Len()))
		packet.Resize(network.CalculateFrontHeadroom(w.conn), 0)
		_, _ = packet.Write(b.Bytes()) // it has the room
		if err := w.conn.WritePacket(packet, singbridge.ToSocksaddr(from)); err != nil {
			return err
		}
	}
	return nil
}

// datagrams is an inbound's socket, bound to one source, as the library writes to it.
type datagrams struct{ gonet.Conn }

func (d datagrams) ReadPacket(packet *singbuf.Buffer) (metadata.Socksaddr, error) {
	_, err := packet.ReadFrom(d.Conn)
	return metadata.Socksaddr{}, err
}

func (d datagrams) WritePacket(packet *singbuf.Buffer, _ metadata.Socksaddr) error {
	defer packet.Release()
	_, err := d.Write(packet.Bytes())
	return err
}
