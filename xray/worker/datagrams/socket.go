package datagrams

import (
	"net"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a UDP socket that tells what does not fit into the reader's buffer. One goroutine
// reads at a time.
type Socket struct {
	*net.UDPConn
	raw  syscall.RawConn
	keep func(p, rest []byte) (kept bool)
	call receive
}

// receive is a call of recvmsg(2). It is a part of the Socket, so that no datagram needs memory
// for one.
type receive struct {
	p       []byte // the reader's buffer
	message unix.Msghdr
	parts   [2]unix.Iovec // p, and a tail
	from    unix.RawSockaddrAny
	n       int
	failed  syscall.Errno
	once    func(descriptor uintptr) (done bool)
}

// NewSocket makes a Socket of conn. It calls keep after each datagram that was read into p, with
// what did not fit: nil for nothing. Where keep returns false, the datagram is dropped.
func NewSocket(conn *net.UDPConn, keep func(p, rest []byte) (kept bool)) (*Socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{UDPConn: conn, raw: raw, keep: keep}
	s.call.once = s.receive
	return s, nil
}

// tails are buffers for what does not fit into the reader's. One is held only while the kernel
// copies, so that a socket that waits for datagrams holds none.
var tails = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// ReadFrom implements net.PacketConn. p must not be empty.
func (s *Socket) ReadFrom(p []byte) (n int, _ net.Addr, err error) {
	s.call.p = p
	defer func() { s.call.p, s.call.parts[0].Base = nil, nil }()
	if err := s.raw.Read(s.call.once); err != nil {
		return 0, nil, err
	}
	if s.call.failed != 0 {
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Source: s.LocalAddr(), Err: s.call.failed}
	}
	return s.call.n, addressOf(&s.call.from), nil
}

// receive reads one datagram that is kept, if there is one. It must not return false before the
// kernel has none: the runtime is told of new datagrams only.
func (s *Socket) receive(descriptor uintptr) (done bool) {
	tail := tails.Get().(*[64 << 10]byte)
	defer tails.Put(tail)
	for {
		kept, failed := s.receiveOne(descriptor, tail)
		switch {
		case failed == unix.EAGAIN:
			return false
		case failed == unix.EINTR:
		case failed != 0 || kept:
			s.call.failed = failed
			return true
		}
	}
}

func (s *Socket) receiveOne(descriptor uintptr, tail *[64 << 10]byte) (kept bool, failed syscall.Errno) {
	c := &s.call
	c.parts[0].Base, c.parts[1].Base = &c.p[0], &tail[0]
	c.parts[0].SetLen(len(c.p))
	c.parts[1].SetLen(len(tail))
	c.message = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&c.from)), Namelen: unix.SizeofSockaddrAny, Iov: &c.parts[0]}
	c.message.SetIovlen(len(c.parts))
	// The runtime waits for datagrams before it calls receive, so the call does not block.
	n, _, failed := syscall.RawSyscall(unix.SYS_RECVMSG, descriptor, uintptr(unsafe.Pointer(&c.message)), unix.MSG_DONTWAIT)
	c.parts[1].Base = nil
	if failed != 0 {
		return false, failed
	}
	c.n = int(n)
	var rest []byte
	if c.n > len(c.p) {
		rest, c.n = slices.Clone(tail[:c.n-len(c.p)]), len(c.p)
	}
	return s.keep(c.p, rest), 0
}

func addressOf(from *unix.RawSockaddrAny) *net.UDPAddr {
	switch from.Addr.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return &net.UDPAddr{IP: slices.Clone(v4.Addr[:]), Port: portOf(&v4.Port)}
	case unix.AF_INET6:
		v6 := (*unix.RawSockaddrInet6)(unsafe.Pointer(from))
		address := &net.UDPAddr{IP: slices.Clone(v6.Addr[:]), Port: portOf(&v6.Port)}
		if v6.Scope_id != 0 {
			if card, err := net.InterfaceByIndex(int(v6.Scope_id)); err == nil {
				address.Zone = card.Name
			}
		}
		return address
	}
	return &net.UDPAddr{}
}

// portOf reads a port, which the kernel writes with its high byte first.
func portOf(port *uint16) int {
	bytes := (*[2]byte)(unsafe.Pointer(port))
	return int(bytes[0])<<8 | int(bytes[1])
}
