package e2e

import (
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// farServer is a stock server with an inbound for every kind of outbound that needs a server.
type farServer struct {
	ports                map[string]int // by name
	serverTLS, clientTLS map[string]any
	key, clientKey       *ecdh.PrivateKey // of its WireGuard inbound
}

func newFarServer(w *world) *farServer {
	w.t.Helper()
	cert := newCert(w.t)
	certFile, keyFile := w.writeCert(cert)
	alpn := []string{"h3"}
	f := &farServer{
		ports:     map[string]int{},
		serverTLS: map[string]any{"certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}, "alpn": alpn},
		clientTLS: map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": pin(cert), "alpn": alpn},
		key:       newWireGuardKey(w.t), clientKey: newWireGuardKey(w.t),
	}
	for _, name := range []string{"socks", "http", "vless", "vmess", "trojan", "shadowsocks", "shadowsocks-2022", "hysteria", "wireguard"} {
		port, err := FreePort()
		must(w.t, err)
		f.ports[name] = port
	}
	return f
}

// account is the account of its SOCKS and HTTP inbounds.
func (f *farServer) account() map[string]any { return map[string]any{"user": "u", "pass": "p"} }

func (f *farServer) inbounds() []any {
	accounts, clients := []any{f.account()}, []any{map[string]any{"id": soleClient}}
	in := func(name, protocol string, settings map[string]any) map[string]any {
		return map[string]any{"tag": name, "listen": "127.0.0.1", "port": f.ports[name], "protocol": protocol, "settings": settings}
	}
	return []any{
		in("socks", "socks", map[string]any{"auth": "password", "udp": true, "ip": "127.0.0.1", "accounts": accounts}),
		in("http", "http", map[string]any{"accounts": accounts}),
		in("vless", "vless", map[string]any{"decryption": "none", "clients": clients}),
		in("vmess", "vmess", map[string]any{"clients": clients}),
		in("trojan", "trojan", map[string]any{"clients": []any{map[string]any{"password": "p"}}}),
		in("shadowsocks", "shadowsocks", map[string]any{"method": "aes-256-gcm", "password": "p", "network": "tcp,udp"}),
		in("shadowsocks-2022", "shadowsocks", map[string]any{"method": "2022-blake3-aes-128-gcm", "password": serverKey, "network": "tcp,udp"}),
		with(in("hysteria", "hysteria", map[string]any{"version": 2, "clients": []any{map[string]any{"auth": "p"}}}),
			"streamSettings", secured(transport("hysteria", map[string]any{"version": 2}), true, f.serverTLS)),
		in("wireguard", "wireguard", map[string]any{
			"secretKey": wireGuardText(f.key.Bytes()), "mtu": 1420, "noKernelTun": true,
			"peers": []any{map[string]any{"publicKey": wireGuardText(f.clientKey.PublicKey().Bytes()), "allowedIPs": []string{"10.9.0.2/32"}}},
		}),
	}
}

// start starts the server. Connections that leave its WireGuard inbound go to the target and
// the echo, whatever their destination: the network stack in the tunnel does not let
// connections go to loopback.
func (f *farServer) start(w *world, target *Target, echo *udpEcho) {
	w.t.Helper()
	redirect := func(tag, to string) any {
		return map[string]any{"tag": tag, "protocol": "freedom", "settings": map[string]any{"redirect": to}}
	}
	leave := func(network string) any {
		return map[string]any{"inboundTag": []string{"wireguard"}, "network": network, "outboundTag": network}
	}
	raw, err := json.Marshal(map[string]any{
		"inbounds":  f.inbounds(),
		"outbounds": []any{map[string]any{"protocol": "freedom"}, redirect("tcp", target.Addr()), redirect("udp", echo.LocalAddr().String())},
		"routing":   map[string]any{"rules": []any{leave("tcp"), leave("udp")}},
	})
	must(w.t, err)
	raw, err = ReachLoopback(raw)
	must(w.t, err)
	file := filepath.Join(w.dir, "far.json")
	must(w.t, os.WriteFile(file, raw, 0o600))
	p, err := start(filepath.Join(w.dir, "far.log"), w.progs.Xray, "run", "-c", file)
	must(w.t, err)
	w.t.Cleanup(func() {
		p.Kill()
		w.showLog("far server", p)
	})
	must(w.t, Eventually(w.ctx, func() error {
		if !strings.Contains(p.Log(), " started") {
			return errors.New("the far server has not started")
		}
		return nil
	}))
}

// outboundRow is a kind of outbound of the node.
type outboundRow struct {
	name     string // the outbound's tag
	protocol string
	settings map[string]any
	more     map[string]any // members beside settings
	beside   []any          // further outbounds
	routing  map[string]any
	tcpOnly  bool
	dns      bool   // it carries only DNS queries
	tunnel   bool   // it has a fixed destination
	alike    string // a further outbound that the same bytes pass
	hop      string // a further outbound that the encrypted bytes pass
}

// config returns the members of services.xray other than the inbound.
func (r outboundRow) config() map[string]any {
	out := map[string]any{"tag": r.name, "protocol": r.protocol, "settings": r.settings}
	maps.Copy(out, r.more)
	outbounds := append([]any{out}, r.beside...)
	config := map[string]any{"outbounds": append(outbounds, map[string]any{"tag": "direct", "protocol": "freedom"})}
	if r.routing != nil {
		config["routing"] = r.routing
	}
	return config
}

// rows has a row for every kind of outbound but blackhole, which carries nothing.
func (f *farServer) rows(names *net.UDPAddr) []outboundRow {
	withAccount := func(port int) map[string]any {
		return servers(port, map[string]any{"users": []any{f.account()}})
	}
	vless, socks := soleSettings(f.ports["vless"]), withAccount(f.ports["socks"])
	freedom := func(tag string) any { return map[string]any{"tag": tag, "protocol": "freedom"} }
	return []outboundRow{
		{name: "freedom", protocol: "freedom"},
		{name: "socks", protocol: "socks", settings: socks},
		{name: "http", protocol: "http", settings: withAccount(f.ports["http"]), tcpOnly: true},
		{name: "vless", protocol: "vless", settings: vless},
		{name: "vless-mux", protocol: "vless", settings: vless, more: mux},
		{name: "vmess", protocol: "vmess", settings: vnext(f.ports["vmess"], map[string]any{"id": soleClient, "security": "auto"})},
		{name: "trojan", protocol: "trojan", settings: servers(f.ports["trojan"], map[string]any{"password": "p"})},
		{name: "shadowsocks", protocol: "shadowsocks", settings: servers(f.ports["shadowsocks"], map[string]any{"password": "p", "method": "aes-256-gcm"})},
		{name: "shadowsocks-2022", protocol: "shadowsocks", settings: servers(f.ports["shadowsocks-2022"], map[string]any{"password": serverKey, "method": "2022-blake3-aes-128-gcm"})},
		{
			name: "hysteria", protocol: "hysteria", settings: map[string]any{"version": 2, "address": "127.0.0.1", "port": f.ports["hysteria"]},
			more: map[string]any{"streamSettings": secured(transport("hysteria", map[string]any{"version": 2, "auth": "p"}), true, f.clientTLS)},
		},
		{name: "wireguard", protocol: "wireguard", settings: map[string]any{
			"secretKey": wireGuardText(f.clientKey.Bytes()), "address": []string{"10.9.0.2/32"}, "mtu": 1420, "noKernelTun": true,
			"peers": []any{map[string]any{"endpoint": net.JoinHostPort("127.0.0.1", itoa(f.ports["wireguard"])), "publicKey": wireGuardText(f.key.PublicKey().Bytes())}},
		}, tunnel: true},
		{name: "dns", protocol: "dns", settings: map[string]any{"address": names.IP.String(), "port": names.Port, "nonIPQuery": "skip"}, dns: true},
		{
			name: "dialer-proxy", protocol: "vless", settings: vless, more: map[string]any{"streamSettings": map[string]any{"sockopt": map[string]any{"dialerProxy": "hop"}}},
			beside: []any{map[string]any{"tag": "hop", "protocol": "socks", "settings": socks}}, hop: "hop",
		},
		{
			name: "proxy-settings", protocol: "vless", settings: vless, more: map[string]any{"proxySettings": map[string]any{"tag": "proxy"}},
			beside: []any{freedom("proxy")}, hop: "proxy",
		},
		{
			name: "loopback", protocol: "loopback", settings: map[string]any{"inboundTag": "again"}, beside: []any{freedom("looped")}, alike: "looped",
			routing: map[string]any{"rules": []any{map[string]any{"inboundTag": []string{"again"}, "outboundTag": "looped"}}},
		},
	}
}

// outboundRun is a row under test.
type outboundRun struct {
	outboundRow
	target *Target
	echo   *udpEcho
	port   int      // of the client's UDP inbound, which leads to the echo
	conn   net.Conn // a connection that stays open
}

// traffic returns what the run's servers counted.
func (o *outboundRun) traffic() Traffic {
	n := o.echo.bytes()
	return o.target.Traffic().plus(Traffic{n, n})
}

// entrance returns the client's inbound for datagrams.
func (o *outboundRun) entrance() any {
	to := o.echo.LocalAddr().(*net.UDPAddr)
	if o.tunnel || o.dns {
		to = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 53}
	}
	return map[string]any{
		"listen": "127.0.0.1", "port": o.port, "protocol": "dokodemo-door",
		"settings": map[string]any{"address": to.IP.String(), "port": to.Port, "network": "udp"},
	}
}

// carry moves bytes of the client through the outbound.
func (o *outboundRun) carry(t *testing.T, client *Client) {
	t.Helper()
	if !o.dns {
		to := o.target.Addr()
		if o.tunnel {
			to = somewhere
		}
		var err error
		o.conn, err = client.Dial(to)
		must(t, err)
		must(t, bounded(o.conn, 0, 1)) // trojan needs a small first payload
		must(t, bounded(o.conn, 100_003, 200_009))
	}
	if o.tcpOnly {
		return
	}
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: o.port})
	must(t, err)
	defer conn.Close()
	must(t, Eventually(t.Context(), func() error {
		if o.dns {
			return ask(conn)
		}
		return bounce(conn, 300)
	}))
}

// nameServer answers that it knows no name. Its answers are as long as the queries.
func (w *world) nameServer() *udpEcho {
	w.t.Helper()
	return w.udpAnswers(func(message []byte) {
		message[2] |= 0x80 // marks a response
		message[3] = byte(dnsmessage.RCodeNameError)
	})
}

// ask queries the name server for a TXT record: Xray answers address queries itself.
func ask(conn net.Conn) error {
	question := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName("site.test."), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET},
	}}
	packed, err := question.Pack()
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(packed); err != nil {
		return err
	}
	buffer := make([]byte, 512)
	n, err := conn.Read(buffer)
	if err != nil {
		return fmt.Errorf("the question gets no answer: %w", err)
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(buffer[:n]); err != nil {
		return err
	}
	if answer.ID != question.ID || !answer.Response || answer.RCode != dnsmessage.RCodeNameError {
		return fmt.Errorf("the answer is not the name server's: %+v", answer.Header)
	}
	return nil
}

// Every kind of outbound carries a client's traffic, which is counted exactly under the
// outbound's tag. Connections live on when another outbound takes the tag, and when the
// outbound is removed.
func TestOutbounds(t *testing.T) {
	t.Parallel()
	w := newScriptedWorld(t, quickConfig)
	far := newFarServer(w.world)
	names := w.nameServer()
	var runs []*outboundRun
	var entrances []any
	for _, row := range far.rows(names.LocalAddr().(*net.UDPAddr)) {
		run := &outboundRun{outboundRow: row, target: w.target(), echo: names}
		if !row.dns {
			run.echo = w.udpEcho()
		}
		if row.tunnel {
			far.start(w.world, run.target, run.echo)
		}
		var err error
		run.port, err = FreePort()
		must(t, err)
		runs, entrances = append(runs, run), append(entrances, run.entrance())
	}
	port, err := FreePort()
	must(t, err)
	client := w.client(map[string]any{"protocol": "vless", "settings": soleSettings(port)}, entrances...)
	for _, run := range runs {
		t.Run(run.name, func(t *testing.T) {
			w.serveSole(port, run.config())
			run.carry(t, client)
			w.serveSole(port, outboundRow{name: run.name, protocol: "blackhole"}.config())
		})
	}
	if t.Failed() {
		return
	}
	for _, run := range runs {
		if run.conn == nil {
			continue
		}
		if err := bounded(run.conn, 10, 10); err != nil {
			t.Errorf("the connection through %s was cut: %v", run.name, err)
		}
		must(t, run.conn.Close())
	}
	status, err := w.agent.Status(t.Context())
	must(t, err)
	if n := status.Engines.Xray.Restarts; n != 0 {
		t.Errorf("the worker was replaced %d times", n)
	}
	w.stopAgent()
	w.wantOutbounds(runs)
}

// wantOutbounds compares the outbound usage that Core was told with what the servers counted.
func (w *scriptedWorld) wantOutbounds(runs []*outboundRun) {
	w.t.Helper()
	w.scripted.mu.Lock()
	defer w.scripted.mu.Unlock()
	have := w.scripted.outbounds
	var sum Traffic
	for _, run := range runs {
		moved := run.traffic()
		sum = sum.plus(moved)
		for _, tag := range []string{run.name, run.alike} {
			if tag != "" && have[tag] != moved {
				w.t.Errorf("outbound %s: Core was told %+v, the servers counted %+v", tag, have[tag], moved)
			}
		}
		if hop := have[run.hop]; run.hop != "" && (hop.Up <= moved.Up || hop.Down <= moved.Down) {
			w.t.Errorf("outbound %s: Core was told %+v, want more than the %+v in it", run.hop, hop, moved)
		}
	}
	if w.scripted.usage[1] != sum {
		w.t.Errorf("the client: Core was told %+v, the servers counted %+v", w.scripted.usage[1], sum)
	}
}
