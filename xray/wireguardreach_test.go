//go:build !race

// The stock client of this test has a race of its own: a datagram comes while its association ends
// (xray-core, transport/internet/udp/dispatcher.go:39 and :80). make unit runs it without the race detector.

package xray_test

import (
	"encoding/json"
	"fmt"
	"net"
	"testing"

	xnet "github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/core"

	"nodeagent/internal/namespace"
)

// A WireGuard outbound over a kernel interface leads clients through the tunnel, and not to the node
// itself: the address that the node has in the tunnel belongs to a local interface.
func TestKernelWireGuardReachesNotTheNode(t *testing.T) {
	if !namespace.Inside(t, "true") {
		return
	}
	r := newRig(t)
	inside, public := wireGuardKeys(t)
	private, peer := wireGuardKeys(t)
	port := freePort(t)
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[
		{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q,"email":"alice"}]}},
		{"tag":"in-2","listen":"127.0.0.1","port":%d,"protocol":"wireguard","settings":{"secretKey":%q,"peers":[{"email":"bob","publicKey":%q,"allowedIPs":["10.9.0.3/32"]}]}}],
		"outbounds":[
			{"tag":"tunnel","protocol":"wireguard","settings":{"secretKey":%q,"address":["10.9.0.3/32"],"peers":[{"endpoint":"127.0.0.1:%d","publicKey":%q}]}},
			{"tag":"direct","protocol":"freedom","settings":{"redirect":%q}}],
		"routing":{"rules":[{"inboundTag":["in-2"],"outboundTag":"direct"}]}}`,
		r.port, aliceID, port, inside, peer, private, port, public, r.echo.Addr())), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for tag, slot := range map[string]uint32{"in-1": 1, "in-2": 2} {
		s.Inbounds[tag].Clients[0].Slot = slot
	}
	r.apply(s)
	service, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	came := make(chan net.Addr, 8)
	go func() {
		for {
			conn, err := service.Accept()
			if err != nil {
				return
			}
			came <- conn.RemoteAddr()
			_ = conn.Close()
		}
	}()
	client, err := r.stockClient(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]}}`, r.port, aliceID))
	if err != nil {
		t.Fatal(err)
	}
	try := func(address string, port int) error {
		conn, err := r.dialThrough(client, xnet.TCPDestination(xnet.ParseAddress(address), xnet.Port(port)))
		if err == nil {
			err = use(conn)
		}
		return err
	}
	if err := try("192.0.2.1", 80); err != nil {
		t.Fatalf("through the tunnel: %v", err)
	}
	if links, err := net.InterfaceByName("wg0"); err != nil {
		t.Fatalf("the outbound has no kernel interface: %v %v", links, err)
	}
	for _, address := range []string{"10.9.0.3", "::ffff:10.9.0.3", "0.0.0.0"} {
		if err := try(address, service.Addr().(*net.TCPAddr).Port); err == nil {
			t.Errorf("%s answers", address)
		}
	}
	if len(came) > 0 {
		t.Errorf("the node's own service was reached from %s", <-came)
	}
	kernelWireGuardOverUDP(t, r, client)
}

// kernelWireGuardOverUDP sends datagrams to a service of the node through the tunnel: as the first of an
// association, and in one that has begun with an address behind the tunnel (XUDP).
func kernelWireGuardOverUDP(t *testing.T, r *rig, client *core.Instance) {
	t.Helper()
	service, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	port := service.LocalAddr().(*net.UDPAddr).Port
	came := make(chan net.Addr, 8)
	go func() {
		for b := make([]byte, 100); ; {
			_, from, err := service.ReadFromUDP(b)
			if err != nil {
				return
			}
			came <- from
		}
	}()
	refused := func() int64 { return r.engine.Status().Refused.Node }
	for _, address := range []string{"10.9.0.3", "::ffff:10.9.0.3", "0.0.0.0"} { // client_networks of the tests have loopback
		at := &net.UDPAddr{IP: net.ParseIP(address), Port: port}
		for _, first := range []*net.UDPAddr{at, {IP: net.IPv4(192, 0, 2, 1), Port: 80}} {
			before := refused()
			conn, err := core.DialUDP(t.Context(), client)
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range []*net.UDPAddr{first, at} {
				if _, err := conn.WriteTo([]byte("there"), to); err != nil {
					t.Logf("%s: %v", to, err)
				}
			}
			r.eventually(fmt.Sprintf("a datagram to %s is refused after one to %s", at, first), func() bool { return refused() > before })
			_ = conn.Close()
		}
	}
	if len(came) > 0 {
		t.Errorf("the node's own service was reached from %s over UDP", <-came)
	}
}
