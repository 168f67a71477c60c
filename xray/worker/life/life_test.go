package life

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/namespace"
)

func TestIsOver(t *testing.T) {
	usual := keepAliveOptions{on: 1, idle: keepIdle, interval: keepInterval, count: keepCount}
	off := usual
	off.on = 0
	const long, short = 80_000, 60_000
	for _, row := range []struct {
		name string
		info unix.TCPInfo
		keep keepAliveOptions
		want bool
	}{
		{"idle, which keepalive sees to", unix.TCPInfo{State: 1, Last_ack_recv: long}, usual, false},
		{"sent again and again", unix.TCPInfo{State: 1, Unacked: 1, Retransmits: 8, Last_ack_recv: long}, usual, true},
		{"sent again, for a short time", unix.TCPInfo{State: 1, Unacked: 1, Retransmits: 8, Last_ack_recv: short}, usual, false},
		{"just sent, after a long silence", unix.TCPInfo{State: 1, Unacked: 1, Last_ack_recv: long}, usual, false},
		{"sent again, without keepalive", unix.TCPInfo{State: 1, Unacked: 1, Retransmits: 8, Last_ack_recv: long}, off, false},
		{"has no room, and answers", unix.TCPInfo{State: 1, Notsent_bytes: 1, Probes: 1, Last_ack_recv: 119_000}, usual, false},
		{"had no room, and is gone", unix.TCPInfo{State: 1, Notsent_bytes: 1, Probes: 3, Last_ack_recv: long}, usual, true},
		{"half closed", unix.TCPInfo{State: stateFinWait2, Last_data_recv: long, Last_data_sent: long}, usual, true},
		{"half closed, and sends", unix.TCPInfo{State: stateFinWait2, Last_data_recv: 10, Last_data_sent: long}, usual, false},
		{"half closed a moment ago", unix.TCPInfo{State: stateFinWait2, Last_data_recv: long, Last_data_sent: 10}, usual, false},
		{"half closed, without keepalive", unix.TCPInfo{State: stateFinWait2, Last_data_recv: short, Last_data_sent: short}, off, true},
		{"half closed by the peer", unix.TCPInfo{State: 8, Last_data_recv: long, Last_data_sent: long, Last_ack_recv: long}, usual, false},
	} {
		if got := suspect(&row.info) && isOver(&row.info, row.keep); got != row.want {
			t.Errorf("%s: it is over: %t", row.name, got)
		}
	}
}

// accepted returns an accepted connection from dial, which connects to the address that it
// gets, and a table with it.
func accepted(t *testing.T, host string, dial func(address string) (net.Conn, error)) (table *Table, server *net.TCPConn, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	if client, err = dial(listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	table, server = NewTable(), conn.(*net.TCPConn)
	table.Add(server)
	return table, server, client
}

func dialTCP(address string) (net.Conn, error) { return net.Dial("tcp", address) }

func peerOf(conn net.Conn) netip.AddrPort { return conn.RemoteAddr().(*net.TCPAddr).AddrPort() }

func keepOf(t *testing.T, socket *net.TCPConn) (keep keepAliveOptions) {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if keep, err = keepAliveOf(int(fd)); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return keep
}

// A peer that is there and silent answers, without noticing. Its keepalive is then as before.
func TestAskOneWhoIsThere(t *testing.T) {
	table, server, client := accepted(t, "127.0.0.1", dialTCP)
	if err := server.SetKeepAliveConfig(net.KeepAliveConfig{Enable: false, Idle: 77 * time.Second, Interval: 88 * time.Second, Count: 9}); err != nil {
		t.Fatal(err)
	}
	before := keepOf(t, server)
	if got := table.Ask(t.Context(), []netip.AddrPort{peerOf(server)}); got != Alive {
		t.Fatalf("the answer is %d", got)
	}
	if after := keepOf(t, server); after != before {
		t.Errorf("the options were %+v, and are %+v", before, after)
	}
	if err := client.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || errors.Is(err, io.EOF) {
		t.Errorf("the peer got %d bytes and %v", n, err)
	}
}

func TestAskOneWhoIsGone(t *testing.T) {
	if !namespace.Inside(t, "true") {
		return
	}
	phone := namespace.NewPhone(t, "10.77.0.2/24", "10.77.0.3/24")
	table, server, _ := accepted(t, namespace.HostIP, func(to string) (net.Conn, error) { return phone.Dial("10.77.0.2", to) })
	_, other, _ := accepted(t, namespace.HostIP, func(to string) (net.Conn, error) { return phone.Dial("10.77.0.3", to) })
	table.Add(other)
	phone.Leave("10.77.0.2/24")
	if got := table.Ask(t.Context(), []netip.AddrPort{peerOf(server)}); got != Silent {
		t.Errorf("the answer of one who is gone is %d", got)
	}
	if got := table.Ask(t.Context(), []netip.AddrPort{peerOf(server), peerOf(other)}); got != Alive {
		t.Errorf("the answer of two, of whom one is gone, is %d", got)
	}
}

func TestAskOneWhoIsUnknown(t *testing.T) {
	table, server, _ := accepted(t, "127.0.0.1", dialTCP)
	unknown := netip.MustParseAddrPort("192.0.2.1:1")
	if got := table.Ask(t.Context(), []netip.AddrPort{unknown}); got != Unknown {
		t.Errorf("the answer is %d", got)
	}
	if got := table.Ask(t.Context(), []netip.AddrPort{unknown, peerOf(server)}); got != Alive {
		t.Errorf("the answer of two, of whom one is unknown, is %d", got)
	}
	if got := table.Ask(t.Context(), nil); got != Unknown {
		t.Errorf("the answer of nobody is %d", got)
	}
}

// A client that has stopped reading is there. The kernel asks it for room, further and further apart,
// and sends no keepalive.
func TestAskOneWhoHasPaused(t *testing.T) {
	table, server, _ := accepted(t, "127.0.0.1", dialTCP)
	if err := server.SetWriteBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if err := server.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 64<<10); ; {
		if _, err := server.Write(block); errors.Is(err, os.ErrDeadlineExceeded) {
			break // the client has no room any more
		} else if err != nil {
			t.Fatal(err)
		}
	}
	// The kernel asks again after 200 milliseconds that double each time. It has just asked, and asks
	// not again while the question below is under way.
	table.sortLocked() // nothing else uses the table
	conn := table.conns[Peer(peerOf(server))][0]
	for deadline := time.Now().Add(time.Minute); conn.info().Backoff < 4; time.Sleep(answerPoll) {
		if time.Now().After(deadline) {
			t.Fatalf("the kernel does not ask for room: %+v", conn.info())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got := table.Ask(ctx, []netip.AddrPort{peerOf(server)}); got == Silent {
		t.Errorf("a client that is there is taken for gone: %+v", conn.info())
	}
}

func TestSaysNothing(t *testing.T) {
	for name, row := range map[string]struct {
		info unix.TCPInfo
		want bool
	}{
		"idle":                        {unix.TCPInfo{}, false},
		"just sent":                   {unix.TCPInfo{Unacked: 1}, true},
		"sent again twice":            {unix.TCPInfo{Unacked: 1, Retransmits: 2}, true},
		"sent again and again":        {unix.TCPInfo{Unacked: 1, Retransmits: 3}, false},
		"has no room":                 {unix.TCPInfo{Notsent_bytes: 1}, true},
		"does not say if it has room": {unix.TCPInfo{Notsent_bytes: 1, Probes: 3}, false},
	} {
		if got := saysNothing(&row.info); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// The table forgets connections that are closed, and keeps the others.
func TestTableForgets(t *testing.T) {
	table, server, _ := accepted(t, "127.0.0.1", dialTCP)
	_, other, _ := accepted(t, "127.0.0.1", dialTCP)
	table.Add(other)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if table.look(); table.Len() != 1 {
		t.Errorf("the table has %d connections", table.Len())
	}
	if got := table.Ask(t.Context(), []netip.AddrPort{peerOf(server)}); got != Alive {
		t.Errorf("the answer of who is left is %d", got)
	}
}

// After the first look the table does not keep a socket alive that nothing else uses.
func TestTableKeepsNoSocket(t *testing.T) {
	table := NewTable()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := dialTCP(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		table.Add(conn.(*net.TCPConn))
	}()
	runtime.GC()
	if table.look(); table.Len() != 1 {
		t.Fatalf("the table has %d connections before the first look", table.Len())
	}
	for deadline := time.Now().Add(time.Minute); table.Len() > 0; table.look() {
		if time.Now().After(deadline) {
			t.Fatal("the table keeps a socket that nothing uses")
		}
		runtime.GC()
	}
}
