package life

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"golang.org/x/sys/unix"
)

// LookEvery is how often Run looks at all connections. To look at 10,000 of them takes a tenth of
// a second of one processor. It is a variable for tests.
var LookEvery = 15 * time.Second

// Table has the accepted TCP connections of a worker.
//
// mu guards added and conns. Each connection's options are changed by one question at a time: see
// conn.asked. No other lock is taken while mu is held.
type Table struct {
	ended atomic.Int64

	mu    sync.Mutex
	added []*net.TCPConn             // since the last look, and not in conns: most of them end before it
	conns map[netip.AddrPort][]*conn // by the peer's address
}

// All is the table of this process: xray-core makes masks without telling for whom.
var All = NewTable()

// NewTable makes a table without connections.
func NewTable() *Table { return &Table{conns: map[netip.AddrPort][]*conn{}} }

// conn is an accepted connection. From the first look on it does not keep the socket from being
// collected. Until then it does: a weak pointer costs more than all the rest of the table, and most
// connections are closed before.
type conn struct {
	young atomic.Pointer[net.TCPConn]               // until the first look
	old   atomic.Pointer[weak.Pointer[net.TCPConn]] // set before young is cleared
	asked atomic.Int32                              // how many questions are under way; they shorten the keepalive
}

// socket returns the socket, or nil if it was collected.
func (c *conn) socket() *net.TCPConn {
	if socket := c.young.Load(); socket != nil {
		return socket
	}
	return c.old.Load().Value()
}

// age lets the socket be collected from now on. look calls it alone.
func (c *conn) age() {
	if socket := c.young.Load(); socket != nil {
		old := weak.Make(socket)
		c.old.Store(&old)
		c.young.Store(nil)
	}
}

// control calls do with the socket's descriptor. It returns an error if the socket is closed.
func (c *conn) control(do func(fd uintptr)) error {
	socket := c.socket()
	if socket == nil {
		return net.ErrClosed
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(do)
}

// Add adds a connection. The table forgets it once it is closed.
func (t *Table) Add(socket *net.TCPConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.added = append(t.added, socket)
}

// sortLocked puts the connections that were added into conns, without those that are closed.
func (t *Table) sortLocked() {
	for _, socket := range t.added {
		c := &conn{}
		c.young.Store(socket)
		address, isTCP := socket.RemoteAddr().(*net.TCPAddr)
		if !isTCP || c.control(func(uintptr) {}) != nil {
			continue
		}
		peer := Peer(address.AddrPort())
		t.conns[peer] = append(t.conns[peer], c)
	}
	t.added = nil
}

// Peer returns an address as the table has it: an IPv4 address that is mapped into IPv6 as
// IPv4, and without a zone.
func Peer(address netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(address.Addr().Unmap().WithZone(""), address.Port())
}

// Ended returns how many connections Run has ended.
func (t *Table) Ended() int64 { return t.ended.Load() }

// Len returns how many connections the table has. Some may be closed.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.added)
	for _, conns := range t.conns {
		n += len(conns)
	}
	return n
}

// Run ends the connections whose peers are gone, until ctx ends.
func (t *Table) Run(ctx context.Context) {
	tick := time.NewTicker(LookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.look()
		}
	}
}

// look looks at each connection once.
func (t *Table) look() {
	t.mu.Lock()
	t.sortLocked()
	all := make([]*conn, 0, len(t.conns))
	for _, conns := range t.conns {
		all = append(all, conns...)
	}
	t.mu.Unlock()
	closed := map[*conn]bool{}
	for _, c := range all {
		over, open := c.look()
		if over && c.end() {
			t.ended.Add(1)
			open = false
		}
		if !open {
			closed[c] = true
		}
	}
	if len(closed) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for peer, conns := range t.conns {
		if conns = slices.DeleteFunc(conns, func(c *conn) bool { return closed[c] }); len(conns) == 0 {
			delete(t.conns, peer)
		} else {
			t.conns[peer] = conns
		}
	}
}

// look tells whether the connection is over, and whether it is open at all.
func (c *conn) look() (over, open bool) {
	err := c.control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.State == stateClose || !suspect(info) || c.asked.Load() > 0 {
			return
		}
		if keep, err := keepAliveOf(int(fd)); err == nil {
			over = isOver(info, keep)
		}
	})
	if err == nil {
		c.age()
	}
	return over, err == nil
}

func keepAliveOf(fd int) (keep keepAliveOptions, err error) {
	for _, option := range []struct {
		to          *int
		level, name int
	}{
		{&keep.on, unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		{&keep.idle, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
		{&keep.interval, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
		{&keep.count, unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	} {
		if *option.to, err = unix.GetsockoptInt(fd, option.level, option.name); err != nil {
			return keep, err
		}
	}
	return keep, nil
}

// End ends the connections of peers.
func (t *Table) End(peers []netip.AddrPort) {
	var all []*conn
	t.mu.Lock()
	t.sortLocked()
	for _, peer := range peers {
		all = append(all, t.conns[Peer(peer)]...)
	}
	t.mu.Unlock()
	for _, c := range all {
		if c.end() {
			t.ended.Add(1)
		}
	}
}

// end closes the connection without waiting for the peer. Bytes in flight are lost. A goroutine that
// reads or writes the connection gets an error.
func (c *conn) end() bool {
	socket := c.socket()
	if socket == nil {
		return false
	}
	_ = socket.SetLinger(0)
	return socket.Close() == nil
}
