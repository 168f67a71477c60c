package worker

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"
	"google.golang.org/protobuf/proto"

	"nodeagent/xray"
)

// proxyState has one VLESS inbound with bob, which reads the PROXY protocol.
func (r *rig) proxyState(where string) xray.State {
	r.t.Helper()
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1",%s,"port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q}]},
		"streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}]}`, where, r.port, bobID))
	s.Inbounds["in-1"].Clients[0].Slot = 2
	return s
}

// A PROXY header without an address ends one connection, not the worker.
func TestPROXYHeaderWithoutAddress(t *testing.T) {
	for name, where := range map[string]string{
		"local": `"listen":"127.0.0.1"`, "trusted": `"listen":"::","trustedProxies":["127.0.0.1"]`, "anybody": `"listen":"0.0.0.0"`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(r.proxyState(where))
			pid := r.engine.Status().PID
			for _, transport := range []byte{0x10, 0x12, 0x13, 0x20, 0x31, 0x00} {
				conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
				if err != nil {
					t.Fatal(err)
				}
				header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21"), transport, 0, 216)
				if _, err := conn.Write(append(header, make([]byte, 216)...)); err != nil {
					t.Fatal(err)
				}
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, conn) // until the worker is done with it
				_ = conn.Close()
			}
			r.apply(xray.State{}) // asks the worker that was there
			if s := r.engine.Status(); s.PID != pid || s.Restarts != 0 {
				t.Errorf("the worker ended: pid %d, then %d", pid, s.PID)
			}
		})
	}
}

// A mask comes out of a configuration as it went in.
func TestProxyMaskIsAMessage(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	wire, err := proto.Marshal(newProxyMask(networks, true))
	if err != nil {
		t.Fatal(err)
	}
	mask := proxyMaskType.New().Interface().(proxyMask)
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
