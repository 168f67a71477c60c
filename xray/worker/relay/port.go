package relay

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

// Port is the socket of one listener. One goroutine reads from it. mu guards ending and the socket's
// deadline.
type Port struct {
	relay  *Relay
	at     netip.AddrPort
	socket net.PacketConn
	// life is how long a source belongs to this worker after the last answer; zero for QUIC, whose
	// connection ids tell.
	life time.Duration
	// bounded says that the listener bounds its new sources by itself.
	bounded bool
	// passed has datagrams of other workers.
	passed chan *datagram
	bytes  atomic.Int64 // of passed

	mu     sync.Mutex
	ending bool // the reader has set a deadline of its own
}

// Listen returns a socket that reads from socket, but for datagrams of other workers' connections, and
// what other workers pass on. It returns socket itself where this process has no relay. Closing it
// closes socket.
func Listen(socket net.PacketConn) net.PacketConn {
	if r := own.Load(); r != nil {
		return r.listen(socket)
	}
	return socket
}

func (r *Relay) listen(socket net.PacketConn) net.PacketConn {
	p := r.port(socket, 0)
	if p == nil {
		return socket
	}
	if udp, is := socket.(*net.UDPConn); is {
		return &batchSocket{UDPConn: udp, Port: p, batch: ipv4.NewPacketConn(udp)}
	}
	return &plainSocket{PacketConn: socket, Port: p}
}

// port makes the Port of a socket; nil where the socket is none of UDP. life is that of the Port.
func (r *Relay) port(socket net.PacketConn, life time.Duration) *Port {
	local, is := socket.LocalAddr().(*net.UDPAddr)
	if !is {
		return nil
	}
	at := local.AddrPort()
	p := &Port{
		relay: r, at: netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()), socket: socket, life: life,
		passed: make(chan *datagram, queued),
	}
	r.mu.Lock()
	r.ports[p] = struct{}{}
	r.mu.Unlock()
	r.table.Serve()
	return p
}

func (p *Port) close() error {
	p.relay.mu.Lock()
	delete(p.relay.ports, p)
	p.relay.mu.Unlock()
	return p.socket.Close()
}

// setReadDeadline sets the reader's own deadline; a zero time takes it back.
func (p *Port) setReadDeadline(at time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = !at.IsZero()
	return p.socket.SetReadDeadline(at)
}

// put queues a datagram and wakes the reader. It returns false where there is no room.
func (p *Port) put(d datagram) bool {
	if p.bytes.Add(int64(len(d.data))) > queuedBytes {
		p.bytes.Add(-int64(len(d.data)))
		return false
	}
	d.control, d.data = bytes.Clone(d.control), bytes.Clone(d.data)
	select {
	case p.passed <- &d:
	default:
		p.bytes.Add(-int64(len(d.data)))
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ending {
		_ = p.socket.SetReadDeadline(time.Unix(1, 0)) // in the past
	}
	return true
}

// woken reports whether err, of a read, means that put has woken the reader.
func (p *Port) woken(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return false
	}
	return p.socket.SetReadDeadline(time.Time{}) == nil
}

// keep reports whether a datagram from the socket is for this worker. Otherwise it was passed on, or
// dropped.
func (p *Port) keep(data, control []byte, from net.Addr) bool {
	if p.life > 0 {
		return p.keepSource(data, from)
	}
	r := p.relay
	if !r.draining.Load() && !r.table.Shared() {
		return true
	}
	lane, is := r.ids.laneOf(data)
	switch {
	case is && lane == r.table.Lane():
		return true
	case !is && (!r.draining.Load() || !begins(data)):
		return true
	case !is:
		if lane, is = r.table.Serving(); !is { // the port is closed to new connections
			r.Dropped.Add(1)
			return false
		}
	}
	client, known := from.(*net.UDPAddr)
	// Where the other worker can't be reached, this one keeps the datagram: to one of a connection QUIC
	// answers with a reset (RFC 9000 section 10.3), and a new connection begins here.
	return !known || !r.pass(lane, datagram{at: p.at, from: client, control: control, data: data})
}

// batchSocket is a Port over a UDP socket. quic-go reads from it with ReadBatch (sys_conn_oob.go:121).
type batchSocket struct {
	*net.UDPConn
	*Port
	batch *ipv4.PacketConn
}

// ReadBatch reads datagrams into messages. A datagram that is not for this worker has no bytes, and
// quic-go passes over it (transport.go, handlePacket).
func (s *batchSocket) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	for {
		if n := s.take(messages); n > 0 {
			return n, nil
		}
		n, err := s.batch.ReadBatch(messages, flags)
		if err != nil {
			if s.woken(err) {
				continue
			}
			return n, err
		}
		for i := range messages[:n] {
			m := &messages[i]
			if !s.keep(m.Buffers[0][:m.N], m.OOB[:m.NN], m.Addr) {
				m.N, m.NN = 0, 0
			}
		}
		return n, nil
	}
}

// take fills messages with datagrams of other workers.
func (s *batchSocket) take(messages []ipv4.Message) (n int) {
	for n < len(messages) {
		select {
		case d := <-s.passed:
			s.bytes.Add(-int64(len(d.data)))
			m := &messages[n]
			if len(d.data) > len(m.Buffers[0]) || len(d.control) > len(m.OOB) {
				continue
			}
			m.N, m.NN, m.Flags, m.Addr = copy(m.Buffers[0], d.data), copy(m.OOB, d.control), 0, d.from
			n++
		default:
			return n
		}
	}
	return n
}

func (s *batchSocket) SetReadDeadline(at time.Time) error { return s.setReadDeadline(at) }
func (s *batchSocket) Close() error                       { return s.close() }

// A Rester is a socket that keeps the rest of a datagram that is longer than the buffer of its reader, by
// that buffer. The inbound asks for it.
type Rester interface {
	// TakeRest returns the rest of the datagram in buffer, and forgets it.
	TakeRest(buffer []byte) []byte
	// KeepRest keeps a rest, nil for none. It returns false where there is no room.
	KeepRest(buffer, rest []byte) (kept bool)
}

// plainSocket is a Port over a masked socket.
type plainSocket struct {
	net.PacketConn
	*Port
}

func (s *plainSocket) ReadFrom(buffer []byte) (int, net.Addr, error) {
	for {
		select {
		case d := <-s.passed:
			s.bytes.Add(-int64(len(d.data)))
			if n := copy(buffer, d.data); s.keepRest(buffer, d.data[n:]) {
				return n, d.from, nil
			}
			continue
		default:
		}
		n, from, err := s.PacketConn.ReadFrom(buffer)
		switch {
		case err != nil && s.woken(err):
		case err != nil || s.keep(buffer[:n], nil, from):
			return n, from, err
		}
	}
}

// keepRest keeps what did not fit into the buffer of a reader.
func (s *plainSocket) keepRest(buffer, rest []byte) bool {
	if len(rest) == 0 {
		rest = nil
	}
	if socket, is := s.PacketConn.(Rester); is {
		return socket.KeepRest(buffer, rest)
	}
	return rest == nil
}

func (s *plainSocket) SetReadDeadline(at time.Time) error { return s.setReadDeadline(at) }
func (s *plainSocket) Close() error                       { return s.close() }
