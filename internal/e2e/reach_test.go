package e2e

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/namespace"
)

// closed is a configuration in which clients reach one address of the node.
const closed = quickConfig + "\n[xray]\nclient_networks = [\"127.9.0.1\"]\n"

// nodeItself are addresses, and names of addresses, that clients must not reach: loopback, the
// unspecified address, link-local, and the other addresses of the namespace's interface.
var nodeItself = []string{
	"127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "169.254.169.254", "198.51.100.7", "2001:db8::7",
	"localhost", "inner.test", "own.test",
}

// insideReachable runs the test in a network namespace with these addresses and names.
func insideReachable(t *testing.T) bool {
	t.Helper()
	namespace.Parallel(t)
	hosts := filepath.Join(t.TempDir(), "hosts")
	return inside(t, `ip addr add 198.51.100.7/32 dev lo && ip addr add 169.254.169.254/32 dev lo && ip -6 addr add 2001:db8::7/128 dev lo nodad &&
printf '127.0.0.1 localhost inner.test mixed.test\n127.9.0.1 mixed.test\n198.51.100.7 own.test\n' >`+hosts+` &&
mount --bind `+hosts+` /etc/hosts`)
}

// innerService listens on all addresses of the node and counts who came.
type innerService struct {
	port int
	came atomic.Int64
	udp  *net.UDPConn
}

func newInnerService(t *testing.T) *innerService {
	t.Helper()
	target := &Target{}
	l, err := net.Listen("tcp", ":0")
	must(t, err)
	s := &innerService{port: l.Addr().(*net.TCPAddr).Port}
	target.listener = l
	target.accept(func(conn net.Conn) {
		s.came.Add(1)
		target.Serve(conn)
	})
	t.Cleanup(func() { _ = l.Close() })
	s.udp, err = net.ListenUDP("udp", &net.UDPAddr{Port: s.port})
	must(t, err)
	t.Cleanup(func() { _ = s.udp.Close() })
	go func() {
		buffer := make([]byte, maxDatagram)
		for {
			n, from, err := s.udp.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			s.came.Add(1)
			_, _ = s.udp.WriteToUDPAddrPort(buffer[:n], from)
		}
	}()
	return s
}

// at is a place of the service, by an address or a name.
func (s *innerService) at(host string) string { return net.JoinHostPort(host, strconv.Itoa(s.port)) }

// tryTCP returns nil where the service answers through the client.
func (s *innerService) tryTCP(c *Client, host string) error {
	conn, err := c.Dial(s.at(host))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	return Exchange(conn, 10, 10)
}

// Clients reach nothing of the node itself: by no protocol, over TCP and UDP, by address and by
// name, although the outbound has a rule that allows everything. They reach what the node's
// operator has opened, by the same ways.
func TestReach(t *testing.T) {
	if !insideReachable(t) {
		return
	}
	rows := []protocolRow{
		vlessRow, vlessRow.with("with mux", mux), vlessRow.with("with XUDP", xudp), trojanRow, shadowsocksRow, ss2022Row, hysteriaRow, socksRow,
		{"http", "http", map[string]any{}, nil, false, proxySettings, nil},
		{"vmess", "vmess", map[string]any{}, nil, false, func(port int, sub Subscription) map[string]any {
			return vnext(port, map[string]any{"id": sub.UUID, "security": "auto"})
		}, nil},
	}
	w := newProtocolWorld(t, rows)
	must(t, os.WriteFile(w.agent.file("config.toml"), []byte(closed), 0o600))
	sub := w.subscriber("alice")
	w.start()
	service := newInnerService(t)
	clients := make([]*Client, len(w.rows))
	for i, r := range w.rows {
		clients[i] = w.clientOf(r, sub)
	}
	var all sync.WaitGroup
	for i, r := range w.rows {
		for _, host := range nodeItself {
			all.Go(func() {
				if service.tryTCP(clients[i], host) == nil {
					t.Errorf("%s: %s answers over TCP", r.name, host)
				}
			})
			if r.protocol != "http" {
				all.Go(func() {
					if tryUDP(clients[i], 3, service.at(host)) == nil {
						t.Errorf("%s: %s answers over UDP", r.name, host)
					}
				})
			}
		}
	}
	all.Wait()
	if n := service.came.Load(); n > 0 {
		t.Errorf("%d connections and datagrams came to the service", n)
	}
	for i, r := range w.rows {
		must(t, service.tryTCP(clients[i], "127.9.0.1"))
		must(t, service.tryTCP(clients[i], "mixed.test"))
		if r.protocol == "http" {
			continue
		}
		must(t, tryUDP(clients[i], 20, service.at("127.9.0.1")))
		// One association sends to an address that is open, and then to one that is not.
		before := service.came.Load()
		must(t, tryUDP(clients[i], 20, service.at("127.9.0.1"), service.at("127.0.0.1"), service.at("127.9.0.1")))
		if n := service.came.Load() - before; n < 2 {
			t.Errorf("%s: %d datagrams came, want 2", r.name, n)
		}
	}
	status, err := w.agent.StatusText(w.ctx)
	must(t, err)
	must(t, contains(status, "to the node itself"))
}

// tryUDP sends datagrams through the client, one after the other over one association, and
// returns nil once the last one is answered. It repeats each of the others until it is answered or
// half a second is over, and the last one as often as tries says.
func tryUDP(c *Client, tries int, to ...string) error {
	control, conn, err := associate(c)
	if err != nil {
		return err
	}
	defer control.Close()
	defer conn.Close()
	for i, target := range to {
		n := 1
		if i == len(to)-1 {
			n = tries
		}
		err = errors.New("no try")
		for range n {
			if err = bounceSOCKS(conn, target, byte(i)); err == nil {
				break
			}
		}
	}
	return err
}

// associate makes an association of the client's. The caller closes both.
func associate(c *Client) (control net.Conn, relay *net.UDPConn, err error) {
	if control, err = net.Dial("tcp", c.socks); err != nil {
		return nil, nil, err
	}
	_ = control.SetDeadline(time.Now().Add(30 * time.Second))
	reply := make([]byte, 12) // the method, and an answer with an IPv4 address
	if _, err = control.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err == nil {
		_, err = io.ReadFull(control, reply)
	}
	if err == nil {
		relay, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: reply[6:10], Port: int(binary.BigEndian.Uint16(reply[10:]))})
	}
	if err != nil {
		_ = control.Close()
		return nil, nil, err
	}
	return control, relay, nil
}

// bounceSOCKS sends a datagram by RFC 1928 section 7 and waits half a second for its echo.
func bounceSOCKS(conn *net.UDPConn, target string, mark byte) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	datagram := []byte{0, 0, 0}
	if address, err := netip.ParseAddr(host); err != nil {
		datagram = append(append(datagram, 3, byte(len(host))), host...)
	} else if address.Is4() {
		datagram = append(append(datagram, 1), address.AsSlice()...)
	} else {
		datagram = append(append(datagram, 4), address.AsSlice()...)
	}
	datagram = append(binary.BigEndian.AppendUint16(datagram, uint16(number)), 'p', 'i', 'n', 'g', mark)
	if _, err := conn.Write(datagram); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		if n >= 5 && string(buffer[n-5:n-1]) == "ping" && buffer[n-1] == mark {
			return nil
		}
	}
}

// The node's own addresses stay open to destinations of the configuration: the target of a tunnel, of
// a redirect, of a fallback, a proxy behind another one (dialerProxy), a DNS server. An address of
// the node is closed from when the node gets it.
func TestOperatorsDestinations(t *testing.T) {
	if !insideReachable(t) {
		return
	}
	w := newScriptedWorld(t, closed)
	service := newInnerService(t)
	names := serveName(t, "service.test.", netip.MustParseAddr("127.9.0.1"))
	far := newFarServer(w.world)
	farPort := far.ports["vless"]
	ports := map[string]int{}
	for _, name := range []string{"tunnel", "redirected", "chained", "named", "fallback", "plain", "opened"} {
		port, err := FreePort()
		must(t, err)
		ports[name] = port
	}
	vless := func(name string) map[string]any {
		return map[string]any{"tag": name, "nodeProtocolId": ports[name], "listen": "127.0.0.1", "port": ports[name], "protocol": "vless", "settings": map[string]any{
			"decryption": "none", "clients": []any{map[string]any{"id": soleClient}},
		}}
	}
	rule := func(in, out string) any { return map[string]any{"inboundTag": []any{in}, "outboundTag": out} }
	allow := map[string]any{"finalRules": []any{map[string]any{"action": "allow"}}}
	fallback := vless("fallback")
	fallback["settings"].(map[string]any)["fallbacks"] = []any{map[string]any{"dest": service.port}}
	cert := newCert(t)
	certFile, keyFile := w.writeCert(cert)
	fallback["streamSettings"] = map[string]any{"security": "tls", "tlsSettings": map[string]any{"certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}}}
	w.serve(map[string]wire.ClientRef{soleClient: {UserID: 1}}, map[string]any{
		"dns": map[string]any{"servers": []any{map[string]any{"address": "127.0.0.1", "port": names.Port}}},
		"inbounds": []any{
			map[string]any{"tag": "tunnel", "listen": "127.0.0.1", "port": ports["tunnel"], "protocol": "dokodemo-door", "settings": map[string]any{"address": "127.0.0.1", "port": service.port, "network": "tcp"}},
			// The far server is another inbound of this node: what leads to it is on loopback.
			map[string]any{"tag": "far", "nodeProtocolId": farPort, "listen": "127.0.0.1", "port": farPort, "protocol": "vless", "settings": map[string]any{"decryption": "none", "clients": []any{map[string]any{"id": soleClient}}}},
			vless("redirected"), vless("chained"), vless("named"), fallback, vless("plain"), vless("opened"),
		},
		"outbounds": []any{
			map[string]any{"tag": "direct", "protocol": "freedom", "settings": allow},
			map[string]any{"tag": "redirect", "protocol": "freedom", "settings": map[string]any{"redirect": service.at("127.0.0.1"), "finalRules": allow["finalRules"]}},
			map[string]any{"tag": "chain", "protocol": "vless", "settings": vnext(farPort, map[string]any{"id": soleClient, "encryption": "none"}), "streamSettings": map[string]any{"sockopt": map[string]any{"dialerProxy": "direct"}}},
			map[string]any{"tag": "resolve", "protocol": "freedom", "settings": map[string]any{"domainStrategy": "ForceIPv4", "finalRules": allow["finalRules"]}},
			map[string]any{"tag": "open", "protocol": "freedom", "settings": map[string]any{"finalRules": []any{map[string]any{"action": "allow", "ip": []any{"127.0.0.0/8"}}}}},
		},
		"routing": map[string]any{"rules": []any{
			rule("redirected", "redirect"), rule("chained", "chain"), rule("named", "resolve"), rule("opened", "open"),
		}},
	})
	client := func(name string) *Client {
		return w.client(map[string]any{"protocol": "vless", "settings": soleSettings(ports[name])})
	}
	conn, err := net.Dial("tcp", loopback(ports["tunnel"]))
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(Patience)))
	if err := Exchange(conn, 10, 10); err != nil {
		t.Errorf("a tunnel: %v", err)
	}
	if err := service.tryTCP(client("redirected"), "127.0.0.1"); err != nil {
		t.Errorf("a redirect: %v", err)
	}
	chained := client("chained")
	if err := service.tryTCP(chained, "127.9.0.1"); err != nil {
		t.Errorf("a proxy on loopback behind dialerProxy: %v", err)
	}
	if service.tryTCP(chained, "127.0.0.1") == nil {
		t.Error("the second node of a chain lets its client reach loopback")
	}
	if err := service.tryTCP(client("named"), "service.test"); err != nil {
		t.Errorf("a name that a DNS server on loopback knows: %v", err)
	}
	if err := service.tryTCP(client("opened"), "127.0.0.1"); err != nil {
		t.Errorf("an address that the outbound's rules name: %v", err)
	}
	secret, err := tls.Dial("tcp", loopback(ports["fallback"]), trustAll())
	must(t, err)
	must(t, secret.SetDeadline(time.Now().Add(Patience)))
	defer secret.Close()
	if err := Exchange(secret, 10, 10); err != nil {
		t.Errorf("a fallback: %v", err)
	}

	// An address that the node gets later.
	plain := client("plain")
	if out, err := exec.CommandContext(w.ctx, "ip", "addr", "add", "198.51.100.99/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, Eventually(w.ctx, func() error { // until the node knows; the kernel tells it
		if service.tryTCP(plain, "198.51.100.99") == nil {
			return errors.New("a new address of the node answers")
		}
		return nil
	}))
	if service.tryTCP(plain, "127.0.0.1") == nil {
		t.Error("loopback answers")
	}
}

// serveName answers DNS queries over UDP, on loopback, with one address.
func serveName(t *testing.T, name string, address netip.Addr) *net.UDPAddr {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDP(buffer)
			if err != nil {
				return
			}
			var query dnsmessage.Message
			if query.Unpack(buffer[:n]) != nil || len(query.Questions) != 1 {
				continue
			}
			query.Response, query.Additionals = true, nil
			if q := query.Questions[0]; q.Type == dnsmessage.TypeA && q.Name.String() == name {
				query.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: address.As4()},
				}}
			}
			if answer, err := query.Pack(); err == nil {
				_, _ = conn.WriteToUDP(answer, from)
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr)
}

// contains returns an error where text lacks part.
func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("%q is not in:\n%s", part, text)
	}
	return nil
}
