package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"testing"
	"time"
)

// serverKey is a Shadowsocks 2022 server's.
const serverKey = "AAAAAAAAAAAAAAAAAAAAAA=="

// vnext and servers are the two ways in which Xray's outbounds name a server;
// port and uuid are filled in per test.
func vnext(port int, user map[string]any) map[string]any {
	return map[string]any{"vnext": []any{map[string]any{"address": "127.0.0.1", "port": port, "users": []any{user}}}}
}

func servers(port int, server map[string]any) map[string]any {
	server["address"], server["port"] = "127.0.0.1", port
	return map[string]any{"servers": []any{server}}
}

// Every protocol, and VLESS over every transport: counted to the byte, online
// and offline told, and cut on removal.
func TestProtocolsAndTransports(t *testing.T) {
	w := newWorld(t)
	_, cert := w.httpsSite()
	certFile, keyFile := w.writeCert(cert)
	serverTLS := map[string]any{"certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}}
	clientTLS := map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": pin(cert)}
	alice := w.subscriber("alice")

	type row struct {
		name     string
		protocol string
		settings map[string]any
		stream   map[string]any
		tls      bool
		outbound func(port int) map[string]any
	}
	vless := func(port int) map[string]any {
		return vnext(port, map[string]any{"id": alice.UUID, "encryption": "none"})
	}
	decryption := map[string]any{"decryption": "none"}
	transport := func(name string, settings map[string]any) map[string]any {
		return map[string]any{"network": name, name + "Settings": settings}
	}
	rows := []row{
		{"vmess", "vmess", map[string]any{}, nil, false, func(port int) map[string]any {
			return vnext(port, map[string]any{"id": alice.UUID, "security": "auto"})
		}},
		{"trojan over TLS", "trojan", map[string]any{}, nil, true, func(port int) map[string]any {
			return servers(port, map[string]any{"password": alice.UUID})
		}},
		{"shadowsocks AEAD", "shadowsocks", map[string]any{"method": "aes-256-gcm", "network": "tcp,udp"}, nil, false, func(port int) map[string]any {
			return servers(port, map[string]any{"password": alice.UUID, "method": "aes-256-gcm"})
		}},
		{"shadowsocks 2022", "shadowsocks", map[string]any{"method": "2022-blake3-aes-128-gcm", "password": serverKey, "network": "tcp,udp"}, nil, false, func(port int) map[string]any {
			sum := sha256.Sum256([]byte(alice.UUID))
			return servers(port, map[string]any{"password": serverKey + ":" + base64.StdEncoding.EncodeToString(sum[:16]), "method": "2022-blake3-aes-128-gcm"})
		}},
		{"vless over WebSocket", "vless", decryption, transport("ws", map[string]any{"path": "/ws"}), false, vless},
		{"vless over HTTPUpgrade", "vless", decryption, transport("httpupgrade", map[string]any{"path": "/up"}), false, vless},
		{"vless over gRPC and TLS", "vless", decryption, transport("grpc", map[string]any{"serviceName": "svc"}), true, vless},
		{"vless over XHTTP and TLS", "vless", decryption, transport("xhttp", map[string]any{"path": "/x"}), true, vless},
		{"vless over mKCP", "vless", decryption, transport("kcp", map[string]any{}), false, vless},
	}
	protocols := make([]Protocol, len(rows))
	for i, r := range rows {
		port, err := FreePort()
		must(t, err)
		in := map[string]any{"listen": "127.0.0.1", "port": port, "protocol": r.protocol, "settings": r.settings}
		if stream := secured(r.stream, r.tls, serverTLS); stream != nil {
			in["streamSettings"] = stream
		}
		protocols[i], err = w.core.AddInbound(w.ctx, "node", in)
		must(t, err)
	}
	w.start()
	want := map[Account]Traffic{}
	type open struct {
		name   string
		client *Client
		target *Target
	}
	var clients []open
	for i, r := range rows {
		outbound := map[string]any{"protocol": r.protocol, "settings": r.outbound(protocols[i].Port)}
		if stream := secured(r.stream, r.tls, clientTLS); stream != nil {
			outbound["streamSettings"] = stream
		}
		if stream, ok := outbound["streamSettings"].(map[string]any); ok && stream["network"] == "ws" {
			// A client that claims to be somebody else.
			stream["wsSettings"] = map[string]any{"path": "/ws", "headers": map[string]any{"X-Forwarded-For": "203.0.113.7"}}
		}
		c := open{r.name, w.client(outbound), w.target()}
		clients = append(clients, c)
		t.Run(r.name, func(t *testing.T) {
			conn := w.dial(c.client, c.target)
			// A stock trojan client fails where its header and a first payload
			// of 8 KiB do not fit one buffer ("buffer is full"): begin small.
			must(t, Exchange(conn, 0, 1))
			must(t, Exchange(conn, 300_007, 500_009))
		})
		want[Account{alice.UserID, protocols[i].ID}] = c.target.Traffic()
	}
	if t.Failed() {
		return
	}
	var disabled any
	must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", alice.UUID))
	w.synced()
	for _, c := range clients {
		conn := w.dial(c.client, c.target)
		// Over UDP nobody says no: silence is the answer.
		must(t, conn.SetDeadline(time.Now().Add(time.Second)))
		if err := Exchange(conn, 0, 1); err == nil {
			t.Errorf("%s: the removed client could return", c.name)
		}
	}
	w.stopAgent()
	w.wantUsage(want)
	events, err := w.core.Events(w.ctx)
	must(t, err)
	online, offline := map[string]int{}, map[string]int{}
	for _, e := range events {
		if e.IPAddress != "127.0.0.1" {
			t.Errorf("%s from %s: a client picked its own address", e.Protocol, e.IPAddress)
		}
		if e.EventType == "online" {
			online[e.Protocol]++
		} else {
			offline[e.Protocol]++
		}
	}
	for _, r := range rows {
		if online[r.protocol] == 0 || online[r.protocol] != offline[r.protocol] {
			t.Errorf("%s: %d online and %d offline", r.protocol, online[r.protocol], offline[r.protocol])
		}
	}
}

// secured adds TLS to a transport; nil for neither.
func secured(stream map[string]any, tls bool, settings map[string]any) map[string]any {
	if stream == nil && !tls {
		return nil
	}
	out := maps.Clone(stream)
	if out == nil {
		out = map[string]any{"network": "raw"}
	}
	if tls {
		out["security"], out["tlsSettings"] = "tls", settings
	}
	return out
}
