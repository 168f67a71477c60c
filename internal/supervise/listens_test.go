package supervise

import (
	"net"
	"net/netip"
	"os"
	"testing"
)

// An address on which another process listens is not the process's own, nor is one on which
// nothing listens.
func TestListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	at := listener.Addr().(*net.TCPAddr).AddrPort()
	self := &Process{pid: os.Getpid()}
	other, _ := shell(t, "exec sleep 60")
	for _, c := range []struct {
		name string
		of   *Process
		at   netip.AddrPort
		want bool
	}{
		{"its own", self, at, true},
		{"another process's", other, at, false},
		{"nobody's", self, netip.AddrPortFrom(at.Addr(), 1), false},
		{"its own port at another address", self, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), at.Port()), false},
	} {
		if got, err := c.of.Listens(c.at); err != nil || got != c.want {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}
