package e2e

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// hostileRow is a protocol and transport that is attacked.
type hostileRow struct {
	name    string
	inbound map[string]any // nil where Core makes it from flags
	// outbound returns the outbound of a client that connects to port. The inbound with that
	// name listens on served.
	outbound func(s Subscription, port, served int) map[string]any
	udp, tls bool
	noTCP    bool
	// repeats is true where a recording opens a connection again, because nothing in the protocol
	// tells it from the first connection.
	repeats bool
	// lingers is true where xray-core keeps parts of a closed connection for long: half a minute
	// with XHTTP, five minutes with Shadowsocks 2022. Many of them look like a leak.
	lingers bool
}

func hostileRows(certFile, keyFile, certPin string) []hostileRow {
	decryption := map[string]any{"decryption": "none"}
	vless := func(s Subscription, port int) map[string]any {
		return vnext(port, map[string]any{"id": s.UUID, "encryption": "none"})
	}
	transport := func(name string, settings map[string]any) map[string]any {
		return map[string]any{"network": name, name + "Settings": settings}
	}
	withALPN := func(r hostileRow, settings map[string]any) map[string]any {
		if r.noTCP { // h3 alone: QUIC
			settings["alpn"] = []string{"h3"}
		}
		return settings
	}
	row := func(r hostileRow, protocol string, settings, stream map[string]any, client func(s Subscription, port int) map[string]any) hostileRow {
		r.inbound = map[string]any{"protocol": protocol, "settings": settings}
		if s := secured(stream, r.tls, withALPN(r, map[string]any{"certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}})); s != nil {
			r.inbound["streamSettings"] = s
		}
		r.outbound = func(s Subscription, port, _ int) map[string]any {
			out := map[string]any{"protocol": protocol, "settings": client(s, port)}
			if stream := secured(stream, r.tls, withALPN(r, map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": certPin})); stream != nil {
				if protocol == "hysteria" { // the only protocol whose client's secret is a transport setting
					stream["hysteriaSettings"] = map[string]any{"version": 2, "auth": s.UUID}
				}
				out["streamSettings"] = stream
			}
			return out
		}
		return r
	}
	return []hostileRow{
		row(hostileRow{name: "vless", repeats: true}, "vless", decryption, nil, vless),
		row(hostileRow{name: "vless TLS", tls: true}, "vless", decryption, nil, vless),
		{name: "vless REALITY", outbound: realityOutbound},
		row(hostileRow{name: "vmess"}, "vmess", map[string]any{}, nil, func(s Subscription, port int) map[string]any {
			return vnext(port, map[string]any{"id": s.UUID, "security": "auto"})
		}),
		row(hostileRow{name: "trojan TLS", tls: true}, "trojan", map[string]any{}, nil, func(s Subscription, port int) map[string]any {
			return servers(port, map[string]any{"password": s.UUID})
		}),
		row(hostileRow{name: "shadowsocks AEAD", udp: true, repeats: true}, "shadowsocks", map[string]any{"method": "aes-256-gcm", "network": "tcp,udp"}, nil, func(s Subscription, port int) map[string]any {
			return servers(port, map[string]any{"password": s.UUID, "method": "aes-256-gcm"})
		}),
		row(hostileRow{name: "shadowsocks 2022", udp: true}, "shadowsocks", map[string]any{"method": "2022-blake3-aes-128-gcm", "password": serverKey, "network": "tcp,udp"}, nil, func(s Subscription, port int) map[string]any {
			sum := sha256.Sum256([]byte(s.UUID))
			return servers(port, map[string]any{"password": serverKey + ":" + base64.StdEncoding.EncodeToString(sum[:16]), "method": "2022-blake3-aes-128-gcm"})
		}),
		row(hostileRow{name: "vless WebSocket"}, "vless", decryption, transport("ws", map[string]any{"path": "/ws"}), vless),
		row(hostileRow{name: "vless gRPC", tls: true}, "vless", decryption, transport("grpc", map[string]any{"serviceName": "svc"}), vless),
		row(hostileRow{name: "vless XHTTP", tls: true, lingers: true}, "vless", decryption, transport("xhttp", map[string]any{"path": "/x"}), vless),
		row(hostileRow{name: "hysteria", udp: true, tls: true, noTCP: true}, "hysteria", map[string]any{"version": 2}, transport("hysteria", map[string]any{"version": 2}), func(_ Subscription, port int) map[string]any {
			return map[string]any{"version": 2, "address": "127.0.0.1", "port": port}
		}),
	}
}

// realityOutbound returns the outbound of the inbound's link, with another port.
func realityOutbound(s Subscription, port, served int) map[string]any {
	for _, link := range s.Links {
		u, err := url.Parse(link)
		if err != nil || u.Port() != itoa(served) {
			continue
		}
		u.Host = net.JoinHostPort(u.Hostname(), itoa(port))
		if outbound, err := VLESS(u.String()); err == nil {
			return outbound
		}
	}
	return nil
}

// quietSite is a site that REALITY borrows and that does not log each attack.
func (w *world) quietSite() (address string, cert tls.Certificate) {
	w.t.Helper()
	cert = newCert(w.t)
	site := httptest.NewUnstartedServer(http.NotFoundHandler())
	site.Config.ErrorLog = silent
	site.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
	site.StartTLS()
	w.t.Cleanup(site.Close)
	return strings.TrimPrefix(site.URL, "https://"), cert
}

// record connects a real client of Mallory's through a proxy that records what the client
// sends.
func (h *hostile) record(d *endpoint, target string) {
	h.t.Helper()
	tape := &tape{}
	port := h.tapeTCP(tape, d.address())
	if d.noTCP {
		port = h.tapeUDP(tape)
	}
	h.n++
	mallory, err := NewClient(h.ctx, h.progs, filepath.Join(h.dir, fmt.Sprintf("mallory-%d", h.n)), d.outbound(h.mallory, port, d.protocol.Port))
	must(h.t, err)
	defer mallory.Kill()
	conn, err := mallory.Dial(target)
	must(h.t, err)
	defer conn.Close()
	must(h.t, conn.SetDeadline(time.Now().Add(Patience)))
	if d.noTCP { // there is no answer: only the first datagrams are wanted
		_, _ = conn.Write([]byte("hello"))
	} else {
		must(h.t, Exchange(conn, 0, 1))
	}
	must(h.t, Eventually(h.ctx, func() error {
		if d.flight, d.datagrams = tape.take(); len(d.flight)+len(d.datagrams) == 0 {
			return fmt.Errorf("%s: nothing was recorded", d.name)
		}
		return nil
	}))
}

// tape records bytes.
type tape struct {
	mu        sync.Mutex
	flight    bytes.Buffer
	datagrams [][]byte
}

// maxTape is more than a client sends before the first answer.
const maxTape = 64 << 10

func (t *tape) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flight.Len() < maxTape {
		t.flight.Write(p)
	}
	return len(p), nil
}

func (t *tape) take() (flight []byte, datagrams [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.flight.Bytes()), t.datagrams
}

// tapeTCP forwards connections to an address and records what the first one sends.
func (h *hostile) tapeTCP(t *tape, to string) (port int) {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(h.t, err)
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		keep := io.Writer(t)
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go forward(in, to, keep)
			keep = io.Discard
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func forward(in net.Conn, to string, keep io.Writer) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}()
	_, _ = io.Copy(out, io.TeeReader(in, keep))
}

// tapeUDP records the first datagrams and answers none.
func (h *hostile) tapeUDP(t *tape) (port int) {
	h.t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(h.t, err)
	h.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		b := make([]byte, maxTape)
		for {
			n, _, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			t.mu.Lock()
			if len(t.datagrams) < 8 {
				t.datagrams = append(t.datagrams, bytes.Clone(b[:n]))
			}
			t.mu.Unlock()
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}
