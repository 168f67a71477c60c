package e2e

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"nodeagent/coreclient/wire"
)

// Whatever the outbound is, and however the name was resolved, clients do not reach the node itself.
func TestReachOfEveryOutbound(t *testing.T) {
	if !insideReachable(t) {
		return
	}
	const openAddress = "198.51.100.20"
	w := newScriptedWorld(t, quickConfig+"\n[xray]\nclient_networks = [\""+openAddress+"\"]\n")
	if out, err := exec.CommandContext(w.ctx, "ip", "addr", "add", openAddress+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	service := newInnerService(t)
	rebound := serveName(t, "rebound.test.", netip.MustParseAddr("127.0.0.1"))
	allow := map[string]any{"finalRules": []any{map[string]any{"action": "allow"}}}
	kinds := []string{"direct", "forced", "loopback", "sniffed", "asked", "through socks", "through http", "through wireguard"}
	ports := map[string]int{}
	for _, name := range append([]string{"socks", "http", "wireguard"}, kinds...) {
		port, err := FreePort()
		must(t, err)
		ports[name] = port
	}
	client := map[string]any{"decryption": "none", "clients": []any{map[string]any{"id": soleClient}}}
	sniffing := map[string]any{
		"sniffed": map[string]any{"enabled": true, "destOverride": []any{"http"}},
	}
	var inbounds, rules []any
	rule := func(in, out string) {
		rules = append(rules, map[string]any{"inboundTag": []any{in}, "outboundTag": out})
	}
	rule("forced", "forced")
	rule("loopback", "loop")
	rule("asked", "dns")
	for _, far := range []string{"socks", "http", "wireguard"} {
		rule("through "+far, "to "+far)
	}
	for _, name := range kinds {
		in := map[string]any{"tag": name, "nodeProtocolId": ports[name], "listen": "127.0.0.1", "port": ports[name], "protocol": "vless", "settings": client}
		if sniffing[name] != nil {
			in["sniffing"] = sniffing[name]
		}
		inbounds = append(inbounds, in)
	}
	near, nearPublic := reachKey(t)
	far, farPublic := reachKey(t)
	inbounds = append(inbounds,
		map[string]any{"tag": "socks", "listen": "127.0.0.1", "port": ports["socks"], "protocol": "socks", "settings": map[string]any{"auth": "noauth", "udp": true}},
		map[string]any{"tag": "http", "listen": "127.0.0.1", "port": ports["http"], "protocol": "http"},
		map[string]any{"tag": "wireguard", "nodeProtocolId": ports["wireguard"], "listen": "127.0.0.1", "port": ports["wireguard"], "protocol": "wireguard", "settings": map[string]any{
			"secretKey": far, "peers": []any{map[string]any{"email": "alice", "publicKey": nearPublic, "allowedIPs": []any{"10.9.0.3/32"}}},
		}},
	)
	server := func(name string) map[string]any {
		return map[string]any{"servers": []any{map[string]any{"address": "127.0.0.1", "port": ports[name]}}}
	}
	w.serve(map[string]wire.ClientRef{soleClient: {UserID: 1}, "alice": {UserID: 1}}, map[string]any{
		"dns":      map[string]any{"servers": []any{map[string]any{"address": "127.0.0.1", "port": rebound.Port}}},
		"inbounds": inbounds,
		"outbounds": []any{
			map[string]any{"tag": "direct", "protocol": "freedom", "settings": allow},
			map[string]any{"tag": "forced", "protocol": "freedom", "settings": map[string]any{"domainStrategy": "ForceIPv4", "finalRules": allow["finalRules"]}},
			map[string]any{"tag": "loop", "protocol": "loopback", "settings": map[string]any{"inboundTag": "direct"}},
			map[string]any{"tag": "dns", "protocol": "dns"},
			map[string]any{"tag": "to socks", "protocol": "socks", "settings": server("socks")},
			map[string]any{"tag": "to http", "protocol": "http", "settings": server("http")},
			map[string]any{"tag": "to wireguard", "protocol": "wireguard", "settings": map[string]any{
				"secretKey": near, "address": []any{"10.9.0.3/32"}, "noKernelTun": true,
				"peers": []any{map[string]any{"endpoint": loopback(ports["wireguard"]), "publicKey": farPublic}},
			}},
		},
		"routing": map[string]any{"rules": rules},
	})
	clients := map[string]*Client{}
	for _, name := range kinds {
		clients[name] = w.client(map[string]any{"protocol": "vless", "settings": soleSettings(ports[name])})
	}
	leading := []string{"direct", "forced", "loopback", "through socks", "through http", "through wireguard"}
	for _, name := range leading {
		if err := service.tryTCP(clients[name], openAddress); err != nil {
			t.Errorf("%s leads nowhere: %v", name, err)
		}
	}
	before := service.came.Load()
	var all sync.WaitGroup
	for _, name := range leading {
		for _, host := range append([]string{"rebound.test", "64:ff9b::7f00:1", "2002:7f00:1::1"}, nodeItself...) {
			all.Go(func() {
				if service.tryTCP(clients[name], host) == nil {
					t.Errorf("%s: %s answers over TCP", name, host)
				}
			})
		}
		for _, host := range []string{"127.0.0.1", "198.51.100.7", "localhost", "rebound.test"} {
			all.Go(func() {
				if name != "through http" && tryUDP(clients[name], 1, service.at(host)) == nil {
					t.Errorf("%s: %s answers over UDP", name, host)
				}
			})
		}
	}
	all.Go(func() { sniffed(t, clients["sniffed"], service) })
	for _, host := range []string{"127.0.0.1", "198.51.100.7"} {
		// The outbound answers by itself, or nobody does.
		all.Go(func() { _ = askFor(clients["asked"], service.at(host), "other.test.", dnsmessage.TypeTXT) })
	}
	all.Wait()
	if n := service.came.Load() - before; n > 0 {
		t.Errorf("%d connections and datagrams came to the service", n)
	}
}

// reachKey makes a key of WireGuard.
func reachKey(t *testing.T) (private, public string) {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	return base64.StdEncoding.EncodeToString(key.Bytes()), base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
}

// sniffed asks an address outside for a name of the node.
func sniffed(t *testing.T, c *Client, service *innerService) {
	t.Helper()
	conn, err := c.Dial(service.at("192.0.2.9"))
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: inner.test:%d\r\n\r\n", service.port); err == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// askFor sends a DNS query through the client, four times at the most, until there is an answer.
func askFor(c *Client, server, name string, kind dnsmessage.Type) error {
	control, relay, err := associate(c)
	if err != nil {
		return err
	}
	defer control.Close()
	defer relay.Close()
	to := netip.MustParseAddrPort(server)
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	head := binary.BigEndian.AppendUint16(append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...), to.Port())
	packed, err := query.AppendPack(head)
	if err != nil {
		return err
	}
	for range 4 {
		if _, err = relay.Write(packed); err != nil {
			return err
		}
		_ = relay.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err = relay.Read(make([]byte, 1500)); err == nil {
			return nil
		}
	}
	return err
}
