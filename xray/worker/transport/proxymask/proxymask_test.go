package proxymask

import (
	"net"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"
	"google.golang.org/protobuf/proto"
)

// A mask comes out of a configuration as it went in.
func TestProxyMaskIsAMessage(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	wire, err := proto.Marshal(New(networks, true))
	if err != nil {
		t.Fatal(err)
	}
	mask := proxyMaskType.New().Interface().(Mask)
	if err := proto.Unmarshal(wire, mask); err != nil {
		t.Fatal(err)
	}
	for address, in := range map[string]bool{"192.0.2.9": true, "::ffff:192.0.2.9": true, "2001:db8::1": true, "192.0.3.1": false, "::1": false} {
		if err := mask.letIn(from(address)); (err == nil) != in {
			t.Errorf("%s: %v", address, err)
		}
	}
	if !mask.Get(forgetsField).Bool() {
		t.Error("it does not forget headers")
	}
}

// peer is a connection of which only its peer's address is known.
type peer struct {
	net.Conn
	address net.Addr
}

func from(address string) peer {
	return peer{address: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 1))}
}

func (p peer) RemoteAddr() net.Addr { return p.address }

// Every header that has no TCP address is refused, but the one by which a proxy speaks for
// itself.
func TestHasAddress(t *testing.T) {
	tcp := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	for name, c := range map[string]struct {
		header proxyproto.Header
		ok     bool
	}{
		"TCP":       {proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4, SourceAddr: tcp, DestinationAddr: tcp}, true},
		"the proxy": {proxyproto.Header{Command: proxyproto.LOCAL}, true},
		"UDP":       {proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: proxyproto.UDPv4, SourceAddr: &net.UDPAddr{}, DestinationAddr: &net.UDPAddr{}}, false},
		"nothing":   {proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4}, false},
	} {
		if err := hasAddress(&c.header); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
