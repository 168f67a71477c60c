package xray_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	xnet "github.com/xtls/xray-core/common/net"

	"nodeagent/xray/xraytest"
)

// udpRelay leads datagrams to a port of the node and back: the client behind it is as a phone.
type udpRelay struct {
	t    *testing.T
	gone atomic.Bool // the phone has no network
	near *net.UDPConn
	to   int
	far  atomic.Pointer[net.UDPConn]
	from atomic.Pointer[net.UDPAddr] // the client's socket
}

func newUDPRelay(t *testing.T, from string, to int) *udpRelay {
	t.Helper()
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	p := &udpRelay{t: t, near: near, to: to}
	p.move(from)
	go func() {
		for b := make([]byte, 64<<10); ; {
			n, client, err := near.ReadFromUDP(b)
			if err != nil {
				return
			}
			p.from.Store(client)
			if far := p.far.Load(); !p.gone.Load() {
				_, _ = far.WriteToUDP(b[:n], p.node(far))
			}
		}
	}()
	return p
}

// port is where the client finds the node.
func (p *udpRelay) port() int { return p.near.LocalAddr().(*net.UDPAddr).Port }

func (p *udpRelay) node(far *net.UDPConn) *net.UDPAddr {
	if far.LocalAddr().(*net.UDPAddr).IP.To4() == nil {
		return &net.UDPAddr{IP: net.IPv6loopback, Port: p.to}
	}
	return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: p.to}
}

// move gives the phone another address, one of this host: the node takes it for the client's.
func (p *udpRelay) move(from string) {
	p.t.Helper()
	// It is not connected: a socket of the node for all addresses answers from the one nearest to the client.
	far, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = far.Close() })
	p.far.Store(far)
	go func() {
		for b := make([]byte, 64<<10); ; {
			n, err := far.Read(b)
			if err != nil {
				return
			}
			if client := p.from.Load(); client != nil && p.far.Load() == far && !p.gone.Load() {
				_, _ = p.near.WriteToUDP(b[:n], client)
			}
		}
	}()
}

// datagramEcho sends every datagram back.
func datagramEcho(t *testing.T) *net.UDPAddr {
	t.Helper()
	echo, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	go func() {
		for b := make([]byte, 64<<10); ; {
			n, from, err := echo.ReadFromUDP(b)
			if err != nil {
				return
			}
			_, _ = echo.WriteToUDP(b[:n], from)
		}
	}()
	return echo.LocalAddr().(*net.UDPAddr)
}

// Clients over UDP that vanish are offline after as long as docs/operating.md says ("Clients that
// vanish"), and one that goes on sending is not.
func TestVanishedUDPAtDefaults(t *testing.T) {
	if os.Getenv(defaultTimes) == "" {
		t.Skipf("NOT RUN: it takes some three minutes. Run it with: make vanished (which sets %s=1)", defaultTimes)
	}
	echo := datagramEcho(t)
	online := &presences{}
	r := newRigThatTells(t, online.heard)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	private, public := wireGuardKeys(t)
	clientPrivate, clientPublic := wireGuardKeys(t)
	const password = "AAAAAAAAAAAAAAAAAAAAAA=="
	const method = "2022-blake3-aes-128-gcm"
	kinds := []struct {
		name, inbound, outbound string
		atMost                  time.Duration
	}{
		{
			"shadowsocks", `"protocol":"shadowsocks","settings":{"network":"tcp,udp","clients":[{"password":"a","email":"a","method":"aes-256-gcm"}]}`,
			`"protocol":"shadowsocks","settings":{"servers":[{"address":"127.0.0.1","port":%d,"method":"aes-256-gcm","password":"a"}]}`, 200 * time.Second,
		},
		{
			"ss2022", `"protocol":"shadowsocks","settings":{"network":"tcp,udp","method":"` + method + `","password":"` + password + `","clients":[{"password":"` + password + `","email":"b"}]}`,
			`"protocol":"shadowsocks","settings":{"servers":[{"address":"127.0.0.1","port":%d,"method":"` + method + `","password":"` + password + `:` + password + `"}]}`, 200 * time.Second,
		},
		{
			"hysteria", `"protocol":"hysteria","settings":{"version":2,"clients":[{"auth":"right","email":"c"}]},"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2},"security":"tls","tlsSettings":` + fmt.Sprintf(`{"certificates":[{"certificate":[%q],"key":[%q]}]}`, certificate, key) + `}`,
			`"protocol":"hysteria","settings":{"version":2,"address":"127.0.0.1","port":%d},"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2,"auth":"right"},"security":"tls","tlsSettings":{"serverName":"site.test","pinnedPeerCertSha256":"` + pinOf(t, certificate) + `","alpn":["h3"]}}`, 60 * time.Second,
		},
		{
			"wireguard", `"protocol":"wireguard","settings":{"secretKey":"` + private + `","peers":[{"email":"d","publicKey":"` + clientPublic + `","allowedIPs":["10.9.0.3/32"]}]}`,
			`"protocol":"wireguard","settings":{"secretKey":"` + clientPrivate + `","address":["10.9.0.3/32"],"noKernelTun":true,"peers":[{"endpoint":"127.0.0.1:%d","publicKey":"` + public + `"}]}`, 200 * time.Second,
		},
	}
	var inbounds []json.RawMessage
	ports, order := make([]int, len(kinds)), make([]int, len(kinds))
	for i, k := range kinds {
		order[i] = i
		ports[i] = freePort(t)
		inbounds = append(inbounds, fmt.Appendf(nil, `{"tag":%q,"nodeProtocolId":%d,"listen":"127.0.0.1","port":%d,%s}`, k.name, i+1, ports[i], k.inbound))
	}
	service, err := json.Marshal(map[string]any{
		"inbounds":  inbounds,
		"outbounds": []any{map[string]any{"tag": "direct", "protocol": "freedom", "settings": map[string]any{"redirect": echo.String()}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseReaching(service, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range kinds {
		s.Inbounds[k.name].Clients[0].Slot = uint32(1 + i)
	}
	r.apply(s)
	var relays []*udpRelay
	for i, k := range kinds {
		relays = append(relays, newUDPRelay(t, "127.0.0.1", ports[i]))
		client, err := r.stockClient(`{` + fmt.Sprintf(k.outbound, relays[i].port()) + `}`)
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		conn, err := r.dialThrough(client, xnet.UDPDestination(xnet.ParseAddress("192.0.2.1"), 80))
		if err == nil {
			err = use(conn)
		}
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		r.eventually(k.name+" is online", func() bool { return online.any(uint32(1 + i)) })
	}
	for _, relay := range relays {
		relay.gone.Store(true)
	}
	begin := time.Now()
	slices.SortStableFunc(order, func(a, b int) int { return int(kinds[a].atMost - kinds[b].atMost) })
	for _, i := range order {
		k := kinds[i]
		r.within(time.Until(begin.Add(k.atMost)), k.name+" is offline", func() bool { return !online.any(uint32(1 + i)) })
		t.Logf("%s was offline at the latest after %s", k.name, time.Since(begin).Round(time.Second))
	}
}

// pinOf is the fingerprint of a certificate in PEM, as clients pin it.
func pinOf(t *testing.T, certificate string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		t.Fatal("it is no certificate in PEM")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}
