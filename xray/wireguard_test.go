package xray_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	xnet "github.com/xtls/xray-core/common/net"
)

// wireGuardKeys makes a pair of keys in base64.
func wireGuardKeys(t *testing.T) (private, public string) {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(k.Bytes()), base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
}

// The worker's own WireGuard outbounds bring up their devices, one new device after the
// other. Each is one chance for the race that package xray/worker/outbound/wireguard
// prevents; the race detector watches the worker.
func TestWireGuardOutbound(t *testing.T) {
	r := newRig(t)
	inside, public := wireGuardKeys(t)
	private, peer := wireGuardKeys(t)
	port := freePort(t)
	for mtu := range 5 {
		s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[
			{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q,"email":"alice"}]}},
			{"tag":"in-2","listen":"127.0.0.1","port":%d,"protocol":"wireguard","settings":{"secretKey":%q,"peers":[{"email":"bob","publicKey":%q,"allowedIPs":["10.9.0.3/32"]}]}}],
			"outbounds":[
				{"tag":"tunnel","protocol":"wireguard","settings":{"secretKey":%q,"address":["10.9.0.3/32"],"mtu":%d,"noKernelTun":true,"peers":[{"endpoint":"127.0.0.1:%d","publicKey":%q}]}},
				{"tag":"direct","protocol":"freedom","settings":{"redirect":%q}}],
			"routing":{"rules":[{"inboundTag":["in-2"],"outboundTag":"direct"}]}}`,
			r.port, aliceID, port, inside, peer, private, 1280+mtu, port, public, r.echo.Addr())), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for tag, slot := range map[string]uint32{"in-1": 1, "in-2": 2} {
			s.Inbounds[tag].Clients[0].Slot = slot
		}
		r.apply(s)
		client, err := r.stockClient(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]}}`, r.port, aliceID))
		if err != nil {
			t.Fatal(err)
		}
		// The device before lives on for its streams, with the same key. What it sends after ten seconds
		// (a keepalive, WireGuard's section 6.5) makes the peer answer it in place of the new one, and
		// the connection through the new one is given up after four seconds. A client tries again.
		r.eventually(fmt.Sprintf("device %d carries a connection", mtu+1), func() bool {
			conn, err := r.dialThrough(client, xnet.TCPDestination(xnet.ParseAddress("192.0.2.1"), 80))
			return err == nil && use(conn) == nil
		})
	}
	if up, down := r.counters.Read(2); up != down || up != 5*uint64(len("there and back")) {
		t.Errorf("bob has %d up and %d down", up, down)
	}
}

// Peers come and go, and the device is replaced, while another one's connection and new
// ones move bytes. The race detector watches it in the worker.
func TestWireGuardPeersUnderLoad(t *testing.T) {
	r := newRig(t)
	private, public := wireGuardKeys(t)
	bobPrivate, bobPublic := wireGuardKeys(t)
	_, alicePublic := wireGuardKeys(t)
	apply := func(mtu int, peers ...string) {
		t.Helper()
		s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"wireguard","settings":{"secretKey":%q,"mtu":%d,"peers":[%s]}}],
			"outbounds":[{"tag":"direct","protocol":"freedom","settings":{"redirect":%q}}]}`, r.port, private, mtu, strings.Join(peers, ","), r.echo.Addr())), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Inbounds["in-1"].Clients {
			c := s.Inbounds["in-1"].Clients[i]
			c.Slot = map[string]uint32{"alice": 1, "bob": 2}[c.Key]
		}
		r.apply(s)
	}
	peer := func(name, public, address string) string {
		return fmt.Sprintf(`{"email":%q,"publicKey":%q,"allowedIPs":[%q]}`, name, public, address)
	}
	alice, bob := peer("alice", alicePublic, "10.9.0.2/32"), peer("bob", bobPublic, "10.9.0.3")
	apply(1420, bob)
	outbound := fmt.Sprintf(`{"protocol":"wireguard","settings":{"secretKey":%q,"address":["10.9.0.3/32"],"mtu":1420,"noKernelTun":true,
		"peers":[{"endpoint":"127.0.0.1:%d","publicKey":%q}]}}`, bobPrivate, r.port, public)
	dial := func() error {
		conn, err := r.dialOutboundTo(outbound, xnet.TCPDestination(xnet.ParseAddress("192.0.2.1"), 80))
		if err == nil {
			err = use(conn)
		}
		return err
	}
	conn, err := r.dialOutboundTo(outbound, xnet.TCPDestination(xnet.ParseAddress("192.0.2.1"), 80))
	if err == nil {
		err = use(conn)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if i%2 == 0 {
			apply(1420, alice, bob)
		} else {
			apply(1420, bob)
		}
		if err := use(conn); err != nil {
			t.Fatalf("bob's connection after change %d: %v", i+1, err)
		}
	}
	if up, down := r.counters.Read(2); up != down || up != 21*uint64(len("there and back")) {
		t.Errorf("bob has %d up and %d down", up, down)
	}
	apply(1300, alice, bob) // another device
	if err := dial(); err != nil {
		t.Errorf("bob does not find the new device: %v", err)
	}
	r.eventually("the old device's streams end", func() bool { return r.engine.Status().Streams <= 1 })
	for mtu := range 20 {
		apply(1280+mtu, bob)
	}
	// A device has about twenty.
	r.eventually("the old devices leave nothing behind", func() bool { return r.engine.Status().Goroutines < 60 })
	bad := strings.Replace(bob, bobPublic, "no key", 1)
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"wireguard","settings":{"secretKey":%q,"mtu":1300,"peers":[%s]}}]}`, r.port, private, bad)), func(string) bool { return true })
	if err == nil {
		err = r.engine.Apply(t.Context(), s)
	}
	if err == nil {
		t.Error("a peer without a key that is one was taken")
	}
	if err := dial(); err != nil {
		t.Errorf("bob after a change that was refused: %v", err)
	}
}
