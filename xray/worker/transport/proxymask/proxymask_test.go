package proxymask

import (
	"io"
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

// A mask that forgets takes the header off where there is one, and needs none. The
// connection keeps its own address.
func TestForgets(t *testing.T) {
	const almost = "PROX\r\n" // begins as a header does
	for name, header := range map[string]string{
		"version 1":                  "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
		"version 1, family unknown":  "PROXY UNKNOWN\r\n",
		"version 2, the proxy's own": "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
		"version 2, TCP":             "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x00\x02",
		"none":                       "",
		"none, but almost":           almost,
	} {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			conn, err := New(nil, true).WrapConnServer(server)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			const own = "the client's own bytes, more than any header has"
			go func() { _, _ = client.Write([]byte(header + own)) }()
			want := own
			if header == almost {
				want = header + own
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
				t.Errorf("read %q (%v), want %q", got, err, want)
			}
			if conn.RemoteAddr() != server.RemoteAddr() {
				t.Errorf("the connection is from %v, want its own address", conn.RemoteAddr())
			}
		})
	}
}
