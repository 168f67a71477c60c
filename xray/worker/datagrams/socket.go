package datagrams

import (
	"net"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is a UDP socket that tells what does not fit into the reader's buffer.
type Socket struct {
	*net.UDPConn
	raw  syscall.RawConn
	keep func(p, rest []byte) (kept bool)
}

// NewSocket makes a Socket of conn. It calls keep after each datagram that was read into p, with
// what did not fit: nil for nothing. Where keep returns false, the datagram is dropped.
func NewSocket(conn *net.UDPConn, keep func(p, rest []byte) (kept bool)) (*Socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Socket{conn, raw, keep}, nil
}

// tails are buffers for what does not fit into the reader's. One is held only while the kernel
// copies, so that a socket that waits for datagrams holds none.
var tails = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// ReadFrom implements net.PacketConn.
func (s *Socket) ReadFrom(p []byte) (n int, _ net.Addr, err error) {
	var from unix.Sockaddr
	if waited := s.raw.Read(func(descriptor uintptr) bool {
		tail := tails.Get().(*[64 << 10]byte)
		defer tails.Put(tail)
		n, _, _, from, err = unix.RecvmsgBuffers(int(descriptor), [][]byte{p, tail[:]}, nil, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			return false
		}
		var rest []byte
		if n > len(p) {
			rest, n = slices.Clone(tail[:n-len(p)]), len(p)
		}
		return err != nil || s.keep(p, rest)
	}); waited != nil {
		return 0, nil, waited
	}
	if err != nil {
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Source: s.LocalAddr(), Err: err}
	}
	return n, addressOf(from), nil
}

func addressOf(from unix.Sockaddr) *net.UDPAddr {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return &net.UDPAddr{IP: from.Addr[:], Port: from.Port}
	case *unix.SockaddrInet6:
		address := &net.UDPAddr{IP: from.Addr[:], Port: from.Port}
		if from.ZoneId != 0 {
			if card, err := net.InterfaceByIndex(int(from.ZoneId)); err == nil {
				address.Zone = card.Name
			}
		}
		return address
	}
	return &net.UDPAddr{}
}
