package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"nodeagent/coreclient/wire"
)

// xhttpWorld is a node with one inbound over XHTTP. Each serve changes the inbound's own
// settings.
type xhttpWorld struct {
	*scriptedWorld
	port     int
	stream   map[string]any
	servings int
	observed bool // the configuration has an observatory
}

func (w *xhttpWorld) serve(clients ...any) {
	w.t.Helper()
	w.servings++
	in := withClients(vlessInbound(w.port, w.stream), clients)
	in["tag"] = "in-1"
	in["sniffing"] = map[string]any{"enabled": true, "destOverride": []any{"http"}, "domainsExcluded": []any{fmt.Sprintf("%d.example", w.servings)}}
	config := map[string]any{"inbounds": []any{in}, "outbounds": []any{map[string]any{"tag": "direct", "protocol": "freedom"}}}
	if w.observed {
		config["observatory"] = map[string]any{"subjectSelector": []any{"direct"}, "probeInterval": "1h"}
	}
	w.scriptedWorld.serve(map[string]wire.ClientRef{soleClient: {UserID: 1}}, config)
}

// takeOver lets another worker take over.
func (w *xhttpWorld) takeOver() {
	w.t.Helper()
	before, err := w.agent.Status(w.ctx)
	must(w.t, err)
	w.observed = !w.observed
	w.serve(map[string]any{"id": soleClient})
	now, err := w.agent.Status(w.ctx)
	must(w.t, err)
	if now.Engines.Xray.PID == before.Engines.Xray.PID {
		w.t.Fatal("no other worker has taken over")
	}
}

// singleRequests is a proxy before the inbound that opens a connection for each request.
func (w *xhttpWorld) singleRequests() int {
	w.t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", w.port)})
	proxy.FlushInterval = -1
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	server := httptest.NewServer(proxy)
	w.t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

// Sessions of XHTTP go on whatever is changed of their inbound, though their requests come over
// new connections, which the new listener accepts. They end with their client.
func TestXHTTPSessionsOutliveTheirListener(t *testing.T) {
	cert := newCert(t)
	for _, row := range []struct {
		name, mode   string
		proxied, tls bool
	}{
		{"packet-up", "packet-up", false, false},
		{"packet-up through a proxy", "packet-up", true, false},
		{"packet-up over TLS", "packet-up", false, true},
		{"stream-up", "stream-up", false, false},
		{"stream-up over TLS", "stream-up", false, true},
		{"stream-one over TLS", "stream-one", false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &xhttpWorld{scriptedWorld: newScriptedWorld(t, quickConfig), stream: transport("xhttp", map[string]any{"path": "/x"})}
			var err error
			w.port, err = FreePort()
			must(t, err)
			// Each connection of the client carries three requests.
			client := transport("xhttp", map[string]any{"path": "/x", "mode": row.mode, "extra": map[string]any{"xmux": map[string]any{"hMaxRequestTimes": "3-3"}}})
			if row.tls {
				certFile, keyFile := w.writeCert(cert)
				w.stream = secured(w.stream, true, map[string]any{"certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}, "alpn": []string{"h2"}})
				client = secured(client, true, map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": pin(cert), "alpn": []string{"h2"}})
			}
			w.serve(map[string]any{"id": soleClient})
			port := w.port
			if row.proxied {
				port = w.singleRequests()
			}
			target := w.target()
			var conns []net.Conn
			for round := range 4 {
				conn := w.dial(w.client(map[string]any{"protocol": "vless", "settings": soleSettings(port), "streamSettings": client}), target)
				conns = append(conns, conn)
				for i, conn := range conns {
					for range 5 { // more than one connection of the client carries
						if err := bounded(conn, 100, 100); err != nil {
							t.Fatalf("connection %d after %d changes: %v", i, round-i, err)
						}
					}
				}
				w.serve(map[string]any{"id": soleClient})
			}
			w.serve()
			for i, conn := range conns {
				if err := bounded(conn, 1, 1); err == nil {
					t.Errorf("connection %d of a removed client lives on", i)
				}
			}
		})
	}
}

// Streams over XHTTP go on through several takeovers, whatever worker gets their requests, and the streams
// that begin meanwhile over connections that are open to a worker that drains are served. Every byte is
// counted once.
func TestXHTTPOutlivesWorkers(t *testing.T) {
	if !migrating(t) { // or a new connection that waits for the worker before is reset, and its packet is lost
		return
	}
	cert := newCert(t)
	_, reality := secureStreams(t)
	for _, row := range []struct {
		name, mode, secure string
		requests           string // that each connection of a client carries
		one                bool   // of HTTP
	}{
		{"packet-up", "packet-up", "tls", "0", false},
		{"packet-up, few requests on a connection", "packet-up", "tls", "3-3", false},
		{"packet-up over HTTP/1.1", "packet-up", "", "0", true},
		{"packet-up over REALITY", "packet-up", "reality", "3-3", false},
		{"stream-up", "stream-up", "tls", "0", false},
		{"stream-up, few requests on a connection", "stream-up", "tls", "3-3", false},
		{"stream-one", "stream-one", "tls", "0", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &xhttpWorld{scriptedWorld: newScriptedWorld(t, quickConfig), stream: transport("xhttp", map[string]any{"path": "/x"})}
			var err error
			w.port, err = FreePort()
			must(t, err)
			stream := transport("xhttp", map[string]any{"path": "/x", "mode": row.mode, "extra": map[string]any{"xmux": map[string]any{"hMaxRequestTimes": row.requests}}})
			switch row.secure {
			case "tls":
				certFile, keyFile := w.writeCert(cert)
				w.stream = secured(w.stream, true, map[string]any{"certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}, "alpn": []string{"h2"}})
				stream = secured(stream, true, map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": pin(cert), "alpn": []string{"h2"}})
			case "reality":
				w.stream, stream = maps.Clone(w.stream), maps.Clone(stream)
				for _, member := range []string{"security", "realitySettings"} {
					w.stream[member], stream[member] = reality.server[member], reality.client[member]
				}
			}
			w.serve(map[string]any{"id": soleClient})
			client := w.client(map[string]any{"protocol": "vless", "settings": soleSettings(w.port), "streamSettings": stream})
			target := w.target()
			stop := make(chan struct{})
			var moving sync.WaitGroup
			var moved []*atomic.Int64
			begin := func() {
				conn, exchanges := w.dial(client, target), new(atomic.Int64)
				moved = append(moved, exchanges)
				moving.Go(func() {
					for {
						select {
						case <-stop:
							_ = conn.Close()
							return
						default:
						}
						if err := exchangeWithin(conn, unnoticedLimit, 3000, 5000); err != nil {
							t.Errorf("a stream ended after %d exchanges: %v", exchanges.Load(), err)
							return
						}
						exchanges.Add(1)
					}
				})
			}
			for range 4 {
				begin()
				w.takeOver()
				begin()
				for _, exchanges := range moved {
					before := exchanges.Load()
					must(t, Within(w.ctx, unnoticedLimit, func() error {
						if t.Failed() || exchanges.Load() > before+10 {
							return nil
						}
						return errors.New("a stream has stopped")
					}))
				}
			}
			close(stop)
			moving.Wait()
			if !row.one { // a client of HTTP/1.1 may use its connections again
				must(t, Eventually(w.ctx, func() error {
					status, err := w.agent.Status(w.ctx)
					if err == nil && status.Engines.Xray.Draining > 0 {
						err = fmt.Errorf("%d workers drain, and nothing is open", status.Engines.Xray.Draining)
					}
					return err
				}))
			}
			w.stopAgent()
			w.scripted.mu.Lock()
			defer w.scripted.mu.Unlock()
			if have, want := w.scripted.usage[1], target.Traffic(); have != want {
				t.Errorf("Core was told %+v, the target counted %+v", have, want)
			}
		})
	}
}

// An upload over HTTP/1.1 goes on for as long as it takes. Stock Xray reads no answer to its packets. As many
// fit the buffers of a connection here as over a network, whose segments are smaller than those of loopback.
func TestXHTTPUploadsAreNotHeldUp(t *testing.T) {
	const socket, sendBuffer, receiveBuffer = 1, 7, 8 // SOL_SOCKET, SO_SNDBUF, SO_RCVBUF
	buffered := func(stream map[string]any, buffer int) map[string]any {
		return with(stream, "sockopt", map[string]any{"customSockopt": []any{map[string]any{"type": "int", "level": itoa(socket), "opt": itoa(buffer), "value": "16384"}}})
	}
	w := &xhttpWorld{scriptedWorld: newScriptedWorld(t, quickConfig), stream: buffered(transport("xhttp", map[string]any{"path": "/x"}), sendBuffer)}
	var err error
	w.port, err = FreePort()
	must(t, err)
	w.serve(map[string]any{"id": soleClient})
	stream := buffered(transport("xhttp", map[string]any{"path": "/x", "mode": "packet-up", "extra": map[string]any{"scMinPostsIntervalMs": "0-1"}}), receiveBuffer)
	conn := w.dial(w.client(map[string]any{"protocol": "vless", "settings": soleSettings(w.port), "streamSettings": stream}), w.target())
	for i := range 1000 {
		if err := bounded(conn, 10, 10); err != nil {
			t.Fatalf("after %d exchanges: %v", i, err)
		}
	}
}
