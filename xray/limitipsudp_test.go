//go:build !race

// Stock clients of XHTTP have races of their own (see vanishedcarriers_test.go).

package xray_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	xnet "github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/core"

	"nodeagent/internal/namespace"
	"nodeagent/xray/xraytest"
)

// followsWithin is how long a phone that has moved may be kept out: the issue of a minute, and what
// a loaded machine needs besides.
const followsWithin = 75 * time.Second

// carrierOverUDP is a way to reach an inbound over UDP: the members of the inbound, and the outbound of
// a client, with the port of a relay as %d.
type carrierOverUDP struct {
	name, inbound, outbound string
	// knows tells that the worker notices by itself whether a silent client is there.
	knows bool
}

func carriersOverUDP(t *testing.T) []carrierOverUDP {
	t.Helper()
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	tls := fmt.Sprintf(`"security":"tls","tlsSettings":{"alpn":["h3"],"certificates":[{"certificate":[%q],"key":[%q]}]}`, certificate, key)
	trust := `"security":"tls","tlsSettings":{"serverName":"site.test","pinnedPeerCertSha256":"` + pinOf(t, certificate) + `","alpn":["h3"]}`
	const password, method = "AAAAAAAAAAAAAAAAAAAAAA==", "2022-blake3-aes-128-gcm"
	vless := func(stream string) string {
		return `"protocol":"vless","settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":"` + aliceID + `","encryption":"none"}]}]},"streamSettings":{` + stream + `}`
	}
	return []carrierOverUDP{
		{
			"shadowsocks", `"protocol":"shadowsocks","settings":{"network":"tcp,udp","clients":[{"password":"a","email":"a","method":"aes-256-gcm","limitIps":1},{"password":"bob","email":"bob","method":"aes-256-gcm","limitIps":1}]}`,
			`"protocol":"shadowsocks","settings":{"servers":[{"address":"127.0.0.1","port":%d,"method":"aes-256-gcm","password":"a"}]}`, false,
		},
		{
			"ss2022", `"protocol":"shadowsocks","settings":{"network":"tcp,udp","method":"` + method + `","password":"` + password + `","clients":[{"password":"` + password + `","email":"b","limitIps":1}]}`,
			`"protocol":"shadowsocks","settings":{"servers":[{"address":"127.0.0.1","port":%d,"method":"` + method + `","password":"` + password + `:` + password + `"}]}`, false,
		},
		{
			"hysteria", `"protocol":"hysteria","settings":{"version":2,"clients":[{"auth":"right","email":"c","limitIps":1}]},"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2},` + tls + `}`,
			`"protocol":"hysteria","settings":{"version":2,"address":"127.0.0.1","port":%d},"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2,"auth":"right"},` + trust + `}`, true,
		},
		{
			"mkcp", `"protocol":"vless","settings":{"decryption":"none","clients":[{"email":"d","id":"` + aliceID + `","limitIps":1}]},"streamSettings":{"network":"kcp"}`,
			vless(`"network":"kcp"`), true,
		},
		{
			"xhttp3", `"protocol":"vless","settings":{"decryption":"none","clients":[{"email":"e","id":"` + aliceID + `","limitIps":1}]},"streamSettings":{"network":"xhttp","xhttpSettings":{"path":"/p"},` + tls + `}`,
			vless(`"network":"xhttp","xhttpSettings":{"path":"/p"},` + trust), true,
		},
	}
}

// device is a stock client behind a relay, with datagrams through the tunnel.
type device struct {
	*udpRelay
	r      *rig
	client *core.Instance
}

func (r *rig) device(c carrierOverUDP, from string, port int) *device {
	r.t.Helper()
	relay := newUDPRelay(r.t, from, port)
	client, err := r.stockClient(`{` + fmt.Sprintf(c.outbound, relay.port()) + `}`)
	if err != nil {
		r.t.Fatalf("%s: %v", c.name, err)
	}
	return &device{relay, r, client}
}

// open opens an association. It returns nil where nothing comes back through it.
func (d *device) open() net.Conn {
	d.r.t.Helper()
	conn, err := d.r.dialThrough(d.client, xnet.UDPDestination(xnet.ParseAddress("192.0.2.1"), 80))
	if err != nil {
		return nil
	}
	if !answers(conn) {
		_ = conn.Close()
		return nil
	}
	return conn
}

// answers reports whether a datagram comes back within some seconds.
func answers(conn net.Conn) bool {
	came := make(chan bool, 1)
	go func() {
		_, err := conn.Read(make([]byte, 100))
		came <- err == nil
	}()
	for range 4 { // one may be lost
		if _, err := conn.Write([]byte("there and back")); err != nil {
			return false
		}
		select {
		case is := <-came:
			return is
		case <-time.After(time.Second):
		}
	}
	return false
}

// limitIps over UDP follows a phone that moves to another network, and keeps a second device out
// that is there, also a silent one where a connection shows that it is there. IPv6 addresses of one network are one.
func TestLimitIPsOfEveryCarrierOverUDP(t *testing.T) {
	addresses := []string{"10.77.0.2", "10.77.0.3", "fd77::2", "fd77::3", "fd77:0:0:1::2"}
	if !namespace.Beside(t, "for a in "+strings.Join(addresses, " ")+"; do ip address add $a dev lo; done") {
		return
	}
	r := newRig(t)
	carriers := carriersOverUDP(t)
	var inbounds []json.RawMessage
	ports := make([]int, len(carriers))
	for i, c := range carriers {
		ports[i] = freePort(t)
		inbounds = append(inbounds, fmt.Appendf(nil, `{"tag":%q,"nodeProtocolId":%d,"listen":"::","port":%d,%s}`, c.name, i+1, ports[i], c.inbound))
	}
	service, err := json.Marshal(map[string]any{
		"inbounds":  inbounds,
		"outbounds": []any{map[string]any{"tag": "direct", "protocol": "freedom", "settings": map[string]any{"redirect": datagramEcho(t).String()}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseReaching(service, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range carriers {
		for n, client := range s.Inbounds[c.name].Clients {
			client.Slot = uint32(1 + 2*i + n)
		}
	}
	r.apply(s)

	// All carriers wait at the same time: their times are half a minute each.
	phones, others := make([]*device, len(carriers)), make([]*device, len(carriers))
	open := make([]net.Conn, len(carriers))
	for i, c := range carriers {
		phones[i], others[i] = r.device(c, "10.77.0.2", ports[i]), r.device(c, "10.77.0.3", ports[i])
		if open[i] = phones[i].open(); open[i] == nil {
			t.Fatalf("%s: the phone is not served", c.name)
		}
	}
	each := func(do func(i int, c carrierOverUDP)) {
		var all sync.WaitGroup
		for i, c := range carriers {
			all.Go(func() { do(i, c) })
		}
		all.Wait()
	}
	for said := time.Now(); time.Since(said) < 40*time.Second; { // longer than a vanished one is kept
		each(func(i int, c carrierOverUDP) {
			if !c.knows && !answers(open[i]) {
				t.Errorf("%s: the phone is not served any more", c.name)
			}
			if others[i].open() != nil {
				t.Errorf("%s: a second device is let in while the first one is there", c.name)
			}
		})
	}
	for i, c := range carriers {
		if !answers(open[i]) {
			t.Errorf("%s: the phone was cut", c.name)
		}
	}
	for i := range carriers {
		phones[i].gone.Store(true)
	}
	vanished := time.Now()
	each(func(i int, c carrierOverUDP) {
		for time.Since(vanished) < followsWithin {
			if others[i].open() != nil {
				t.Logf("%s: the phone was let in at its other address after %s", c.name, time.Since(vanished).Round(time.Second))
				return
			}
		}
		t.Errorf("%s: the phone was not let in at its other address within %s", c.name, followsWithin)
	})

	// Two privacy addresses are one place, and another network is not.
	bobs := carriers[0]
	bobs.outbound = strings.Replace(bobs.outbound, `"password":"a"`, `"password":"bob"`, 1)
	for _, row := range []struct {
		from string
		is   bool
	}{{"fd77::2", true}, {"fd77::3", true}, {"fd77:0:0:1::2", false}} {
		if is := r.device(bobs, row.from, ports[0]).open() != nil; is != row.is {
			t.Errorf("over IPv6, let in from %s: %t", row.from, is)
		}
	}
}

// limitIps keeps no phone out that moves with a tunnel of WireGuard, nor what is open in the tunnel. Of two
// devices with one key, the one that sends last has the session.
func TestLimitIPsInATunnelOfEveryCarrierOverUDP(t *testing.T) {
	if !namespace.Beside(t, "for a in 10.77.0.2 10.77.0.3; do ip address add $a dev lo; done") {
		return
	}
	r := newRig(t)
	private, public := wireGuardKeys(t)
	clientPrivate, clientPublic := wireGuardKeys(t)
	s, err := parseReaching(fmt.Appendf(nil, `{"inbounds":[{"tag":"in-1","listen":"0.0.0.0","port":%d,"protocol":"wireguard","settings":{"secretKey":%q,
		"peers":[{"email":"a","publicKey":%q,"allowedIPs":["10.9.0.3/32"],"limitIps":1}]}}],
		"outbounds":[{"tag":"direct","protocol":"freedom","settings":{"redirect":%q}}]}`, r.port, private, clientPublic, datagramEcho(t).String()), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	s.Inbounds["in-1"].Clients[0].Slot = 1
	r.apply(s)
	tunnel := carrierOverUDP{name: "wireguard", outbound: `"protocol":"wireguard","settings":{"secretKey":"` + clientPrivate + `","address":["10.9.0.3/32"],"noKernelTun":true,"peers":[{"endpoint":"127.0.0.1:%d","publicKey":"` + public + `"}]}`}
	phone := r.device(tunnel, "10.77.0.2", r.port)
	conn := phone.open()
	if conn == nil {
		t.Fatal("the phone is not served")
	}
	phone.move("10.77.0.3")
	if !answers(conn) {
		t.Error("the phone is not served at its other address")
	}
	other := r.device(tunnel, "10.77.0.2", r.port)
	r.within(time.Minute, "another device with the key has the session", func() bool { return other.open() != nil })
	other.gone.Store(true)
	r.within(time.Minute, "the phone has the tunnel again", func() bool { return answers(conn) })
}
