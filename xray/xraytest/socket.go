package xraytest

import (
	"net"
	"testing"
)

// SocketPair returns both ends of a TCP connection over loopback. They are closed when the test ends.
func SocketPair(tb testing.TB) (accepted, dialed *net.TCPConn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	ours, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _, _ = theirs.Close(), ours.Close() })
	return ours.(*net.TCPConn), theirs.(*net.TCPConn)
}
