package hysteria

import (
	"errors"
	"time"

	"github.com/apernet/quic-go"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	xhysteria "github.com/xtls/xray-core/proxy/hysteria"
)

// messenger is what this package needs of a *hysteria.DatagramConn.
type messenger interface {
	Receive() ([]byte, error)
	Send(message []byte) error
}

// reader reads the client's datagrams.
type reader struct {
	from      messenger
	assembler assembler
	first     *buf.Buffer // read before the others; nil once it is taken
}

// ReadMultiBuffer returns one datagram, with its destination.
func (r *reader) ReadMultiBuffer() (buf.MultiBuffer, error) {
	if first := r.first; first != nil {
		r.first = nil
		return buf.MultiBuffer{first}, nil
	}
	datagram, err := r.next()
	if err != nil {
		return nil, err
	}
	return buf.MultiBuffer{datagram}, nil
}

// next returns the next whole datagram. Messages that cannot be read are dropped.
func (r *reader) next() (*buf.Buffer, error) {
	for {
		raw, err := r.from.Receive()
		if err != nil {
			return nil, err
		}
		message, err := xhysteria.ParseUDPMessage(raw)
		if err != nil {
			continue
		}
		data := r.assembler.add(message, time.Now())
		if data == nil {
			continue
		}
		to, err := net.ParseDestination("udp:" + message.Addr)
		if err != nil {
			continue
		}
		datagram := buf.FromBytes(data)
		datagram.UDP = &to
		return datagram, nil
	}
}

// maxMessage is the longest message that a peer takes: xray-core, the reference client of
// Hysteria and others bound the DATAGRAM frame to 1,200 bytes, three of which are the frame's
// type and length. Such a frame fits into the smallest packet that quic-go sends, whose 1,280
// bytes have up to 41 bytes of header and tag. quic-go's own estimate may be larger than what
// fits (connection.go:2154 forgets the header), and quic-go drops a frame that does not fit.
const maxMessage = 1197

// writer sends datagrams to the client. from is the source of those that have none.
type writer struct {
	to     messenger
	from   string
	packet uint16 // the ID of the last datagram that was sent in fragments
	limit  int    // the longest message that fits; 0 for maxMessage
	buffer [maxMessage]byte
}

// WriteMultiBuffer sends each buffer as one datagram. A datagram that cannot be sent in 255
// fragments is dropped.
func (w *writer) WriteMultiBuffer(all buf.MultiBuffer) error {
	defer buf.ReleaseMulti(all)
	for _, datagram := range all {
		from := w.from
		if datagram.UDP != nil {
			from = datagram.UDP.NetAddr()
		}
		if err := w.send(xhysteria.UDPMessage{FragCount: 1, Addr: from, Data: datagram.Bytes()}); err != nil {
			return err
		}
	}
	return nil
}

// send sends a datagram whole where it fits, else in fragments. A path whose packets are
// smaller than assumed is noticed by the first message that is too large for it.
func (w *writer) send(m xhysteria.UDPMessage) error {
	if w.limit == 0 {
		w.limit = maxMessage
	}
	err := w.sendWithin(m)
	tooLarge, is := errors.AsType[*quic.DatagramTooLargeError](err)
	if !is || int(tooLarge.MaxDatagramPayloadSize) >= w.limit {
		return err
	}
	w.limit = int(tooLarge.MaxDatagramPayloadSize)
	if err := w.sendWithin(m); !errors.Is(err, &quic.DatagramTooLargeError{}) {
		return err
	}
	return nil
}

func (w *writer) sendWithin(m xhysteria.UDPMessage) error {
	if len(m.Data) == 0 {
		return nil // Hysteria has no empty datagrams
	}
	if m.Size() <= w.limit {
		return w.to.Send(w.buffer[:m.Serialize(w.buffer[:])])
	}
	room := w.limit - m.HeaderSize()
	if room <= 0 || (len(m.Data)+room-1)/room > 255 {
		return nil
	}
	if w.packet++; w.packet == 0 { // 0 is the ID of whole datagrams
		w.packet++
	}
	m.PacketID = w.packet
	for _, fragment := range xhysteria.FragUDPMessage(&m, w.limit) {
		if err := w.to.Send(w.buffer[:fragment.Serialize(w.buffer[:])]); err != nil {
			return err
		}
	}
	return nil
}
