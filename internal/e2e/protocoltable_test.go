package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apernet/quic-go"
	"github.com/apernet/quic-go/http3"
)

// tableRow is a protocol of the table in docs/protocols.md.
type tableRow struct {
	protocolRow
	udp    bool
	inside *udpEcho
	client *Client
	target *Target
	// tunnel and web are sockets of the client whose datagrams come out at the echo and at the
	// site.
	tunnel *net.UDPConn
	web    int // port
}

func tableRows() []*tableRow {
	var rows []*tableRow
	for _, r := range protocolRows() {
		switch r.name {
		case "vless over TLS", "vless over WebSocket and TLS", "vless over gRPC and TLS", "vless over XHTTP and TLS", "vless over mKCP",
			"vmess over TCP", "trojan over TLS", "shadowsocks AEAD", "shadowsocks 2022", "hysteria", "socks", "http":
			rows = append(rows, &tableRow{protocolRow: r, udp: r.name != "http"})
		}
	}
	xudpRow := vlessRow.with("with XUDP", xudp)
	return append([]*tableRow{{protocolRow: vlessRow, udp: true}, {protocolRow: xudpRow, udp: true}}, rows...)
}

// These pass through each protocol with their contents: streams, megabytes in lockstep over a slow
// reader, datagrams, and HTTP/3. The test prints the table, which has to be the one in
// docs/protocols.md.
func TestProtocolTable(t *testing.T) {
	t.Parallel()
	rows := tableRows()
	var plain []protocolRow
	for _, r := range rows {
		plain = append(plain, r.protocolRow)
	}
	w := newProtocolWorld(t, plain)
	alice := w.subscriber("alice")
	w.start()
	site := http3Site(t)
	for i, r := range rows {
		r.target = w.newContentTarget()
		if !r.udp {
			r.client = w.clientOf(w.rows[i], alice)
			continue
		}
		r.inside = w.udpEcho()
		port, err := FreePort()
		must(t, err)
		r.web, err = FreePort()
		must(t, err)
		at := func(local int, to net.Addr) map[string]any {
			return map[string]any{
				"listen": "127.0.0.1", "port": local, "protocol": "dokodemo-door",
				"settings": map[string]any{"address": "127.0.0.1", "port": to.(*net.UDPAddr).Port, "network": "udp"},
			}
		}
		r.client = w.clientOf(w.rows[i], alice, at(port, r.inside.LocalAddr()), at(r.web, site))
		r.tunnel, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		must(t, err)
		t.Cleanup(func() { _ = r.tunnel.Close() })
	}
	lines := make([]string, len(rows))
	t.Run("rows", func(t *testing.T) {
		for i, r := range rows {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				lines[i] = r.measure(t)
			})
		}
	})
	table := "| protocol | streams | large transfers in lockstep, slow reader | datagrams, bytes | HTTP/3 |\n|---|---|---|---|---|\n" + strings.Join(lines, "")
	t.Log("\n" + table)
	document, err := os.ReadFile("../../docs/protocols.md")
	must(t, err)
	if !t.Failed() && !strings.Contains(string(document), table) {
		t.Error("docs/protocols.md has another table")
	}
}

// measure returns the row of the table.
func (r *tableRow) measure(t *testing.T) string {
	conn, err := r.client.Dial(r.target.Addr())
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(3*Patience)))
	must(t, exchangeContents(conn, 0, 1))
	must(t, exchangeContents(conn, 300_007, 500_009))
	for range 2 {
		must(t, exchangeContents(slowReader{conn}, 512<<10, 1<<20))
	}
	datagrams, web := "–", "–"
	if r.udp {
		sizes := datagramSizes(r.protocol)
		for _, size := range sizes {
			must(t, Eventually(t.Context(), func() error { return bounce(r.tunnel, size) }))
		}
		must(t, askHTTP3(t.Context(), loopback(r.web)))
		datagrams, web = fmt.Sprintf("1 to %d", sizes[len(sizes)-1]), "yes"
	}
	return fmt.Sprintf("| %s | yes | yes | %s | %s |\n", r.name, datagrams, web)
}

// slowReader reads about 20 Mbit/s: 16 KiB every six milliseconds at the most.
type slowReader struct{ net.Conn }

func (r slowReader) Read(p []byte) (int, error) {
	time.Sleep(6 * time.Millisecond)
	return r.Conn.Read(p[:min(len(p), 16<<10)])
}

// page is what goes to the site and comes back.
var page = func() []byte {
	bytes := make([]byte, 300_007)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(bytes)
	return bytes
}()

// http3Site answers over HTTP/3 with the body that it gets.
func http3Site(t *testing.T) net.Addr {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	site := &http3.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{newCert(t)}, NextProtos: []string{"h3"}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(w, r.Body); err != nil {
				t.Logf("the site: %v", err)
			}
		}),
	}
	go func() { _ = site.Serve(socket) }()
	t.Cleanup(func() { _, _ = site.Close(), socket.Close() })
	return socket.LocalAddr()
}

// askHTTP3 sends the page to the site at address and compares what comes back.
func askHTTP3(ctx context.Context, address string) error {
	web := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}},
		Dial: func(ctx context.Context, _ string, config *tls.Config, settings *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, address, config, settings)
		},
	}
	defer web.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://site.test/", bytes.NewReader(page))
	if err != nil {
		return err
	}
	answer, err := web.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("ask over HTTP/3: %w", err)
	}
	got, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err == nil && (answer.StatusCode != http.StatusOK || !bytes.Equal(got, page)) {
		err = fmt.Errorf("the site answers %s with %d bytes", answer.Status, len(got))
	}
	return err
}
