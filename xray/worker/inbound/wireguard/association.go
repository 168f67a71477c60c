package wireguard

import (
	"errors"
	"io"
	gonet "net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// waiting is how many datagrams of a client's port wait for a way out that is slow,
// before more are dropped: the tunnel serves others too.
const waiting = 64

// udpIdle is how long an association lives without a datagram in any direction, as xray-core's of other
// inbounds (app/proxyman/inbound/worker.go:397). The idle time of the policy ends one after five to ten
// minutes.
const udpIdle = 2 * time.Minute

// association is a client's UDP port: every destination that it sends to answers to it. It is the
// stream's connection, reader and writer.
type association struct {
	tunnel *tunnel
	client netip.AddrPort
	first  netip.AddrPort // to whom the first datagram went

	packets chan *buf.Buffer
	moved   atomic.Int64 // when a datagram went last in any direction, as a Unix time in nanoseconds
	idle    *time.Timer  // see ReadMultiBuffer; it may fire too early
	ended   chan struct{}
	endOnce sync.Once
}

// datagram takes a UDP packet of a client's. It never waits.
func (t *tunnel) datagram(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	client, to := addrPort(id.RemoteAddress, id.RemotePort), addrPort(id.LocalAddress, id.LocalPort)
	b := buf.FromBytes(packet.Data().AsRange().ToSlice())
	destination := net.UDPDestination(net.IPAddress(to.Addr().AsSlice()), net.Port(to.Port()))
	b.UDP = &destination
	t.mu.Lock()
	a := t.associations[client]
	if a == nil {
		if t.ctx.Err() != nil {
			t.mu.Unlock()
			return true
		}
		a = &association{tunnel: t, client: client, first: to, packets: make(chan *buf.Buffer, waiting), ended: make(chan struct{})}
		t.associations[client] = a
		go t.associated(a, to)
	}
	t.mu.Unlock()
	select {
	case a.packets <- b:
	default:
	}
	return true
}

// ReadMultiBuffer implements buf.Reader: the datagrams that wait, at least one. One goroutine reads.
func (a *association) ReadMultiBuffer() (mb buf.MultiBuffer, err error) {
	if a.idle == nil {
		a.idle = time.NewTimer(udpIdle)
	}
	for {
		select {
		case b := <-a.packets:
			mb = append(mb, b)
			for range min(len(a.packets), readAtOnce-1) {
				mb = append(mb, <-a.packets)
			}
			a.moved.Store(time.Now().UnixNano())
			return mb, nil
		case <-a.ended:
			return nil, io.EOF
		case <-a.idle.C:
		}
		left := udpIdle - time.Since(time.Unix(0, a.moved.Load()))
		if len(a.packets) > 0 { // the reader was held up for longer than that
			left = udpIdle
		}
		if left <= 0 {
			_ = a.Close()
			return nil, io.EOF
		}
		a.idle.Reset(left)
	}
}

// WriteMultiBuffer implements buf.Writer.
func (a *association) WriteMultiBuffer(mb buf.MultiBuffer) error {
	defer buf.ReleaseMulti(mb)
	a.moved.Store(time.Now().UnixNano())
	for _, b := range mb {
		from := a.first
		if b.UDP != nil && b.UDP.Address.Family().IsIP() {
			ip, _ := netip.AddrFromSlice(b.UDP.Address.IP())
			from = netip.AddrPortFrom(ip.Unmap(), uint16(b.UDP.Port))
		}
		if from.Addr().Is4() != a.client.Addr().Is4() {
			from = a.first // an answer of the other family can't be told from whom it is
		}
		if err := a.tunnel.send(from, a.client, b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// send puts a datagram into the tunnel.
func (t *tunnel) send(from, to netip.AddrPort, payload []byte) error {
	head := header.IPv4MinimumSize
	protocol := header.IPv4ProtocolNumber
	if to.Addr().Is6() {
		head, protocol = header.IPv6MinimumSize, header.IPv6ProtocolNumber
	}
	length := header.UDPMinimumSize + len(payload)
	raw := make([]byte, head+length)
	copy(raw[head+header.UDPMinimumSize:], payload)
	source, destination := tcpip.AddrFromSlice(from.Addr().AsSlice()), tcpip.AddrFromSlice(to.Addr().AsSlice())
	u := header.UDP(raw[head:])
	u.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(length)})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, source, destination, uint16(length))
	sum = ^u.CalculateChecksum(checksum.Checksum(payload, sum))
	if sum == 0 {
		sum = 0xffff // none would mean that there is none (RFC 768)
	}
	u.SetChecksum(sum)
	if to.Addr().Is4() {
		ip := header.IPv4(raw)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(raw)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: source, DstAddr: destination})
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		header.IPv6(raw).Encode(&header.IPv6Fields{PayloadLength: uint16(length), TransportProtocol: header.UDPProtocolNumber, HopLimit: 64, SrcAddr: source, DstAddr: destination})
	}
	err := t.stack.WriteRawPacket(nic, protocol, buffer.MakeWithData(raw))
	if _, full := err.(*tcpip.ErrNoBufferSpace); err == nil || full { // UDP may be dropped
		return nil
	}
	return errors.New(err.String())
}

// Close ends the association; a later datagram of that port begins another one.
func (a *association) Close() error {
	a.endOnce.Do(func() {
		close(a.ended)
		a.tunnel.mu.Lock()
		defer a.tunnel.mu.Unlock()
		if a.tunnel.associations[a.client] == a {
			delete(a.tunnel.associations, a.client)
		}
	})
	return nil
}

// Interrupt implements common.Interruptible.
func (a *association) Interrupt() { _ = a.Close() }

// The rest of net.Conn, of which xray-core asks for the address and Close alone.

func (a *association) RemoteAddr() gonet.Addr         { return gonet.UDPAddrFromAddrPort(a.client) }
func (a *association) LocalAddr() gonet.Addr          { return gonet.UDPAddrFromAddrPort(a.first) }
func (*association) Read([]byte) (int, error)         { return 0, errors.ErrUnsupported }
func (*association) Write([]byte) (int, error)        { return 0, errors.ErrUnsupported }
func (*association) SetDeadline(time.Time) error      { return nil }
func (*association) SetReadDeadline(time.Time) error  { return nil }
func (*association) SetWriteDeadline(time.Time) error { return nil }
