package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
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
}

func (w *xhttpWorld) serve(clients ...any) {
	w.t.Helper()
	w.servings++
	in := withClients(vlessInbound(w.port, w.stream), clients)
	in["tag"] = "in-1"
	in["sniffing"] = map[string]any{"enabled": true, "destOverride": []any{"http"}, "domainsExcluded": []any{fmt.Sprintf("%d.example", w.servings)}}
	w.scriptedWorld.serve(map[string]wire.ClientRef{soleClient: {UserID: 1}}, map[string]any{"inbounds": []any{in}})
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
