package coreclient

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel finds a dead connection within deadAfter, whether something was sent on it or not.
func TestDeadConnectionsAreFoundByTheKernel(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := dialer().DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	if err := raw.Control(func(fd uintptr) {
		for name, option := range map[string][2]int{
			"keepalive": {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, "idle": {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, "interval": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
			"count": {unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, "unanswered": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
		} {
			value, err := unix.GetsockoptInt(int(fd), option[0], option[1])
			if err != nil {
				t.Error(name, err)
			}
			got[name] = value
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got["keepalive"] != 1 || got["idle"]+got["interval"]*got["count"] != int(deadAfter.Seconds()) || got["unanswered"] != int(deadAfter.Milliseconds()) {
		t.Errorf("the socket has %v", got)
	}
}
