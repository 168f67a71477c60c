package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mountedCert is a folder as Kubernetes mounts a secret: the names are links into a
// folder that is a link too, and a renewal turns that one.
type mountedCert struct {
	w       *world
	dir     string
	version int
}

func (m *mountedCert) put(certificate, key []byte) {
	m.w.t.Helper()
	m.version++
	data := filepath.Join(m.dir, fmt.Sprintf("..v%d", m.version))
	must(m.w.t, os.MkdirAll(data, 0o700))
	must(m.w.t, os.WriteFile(filepath.Join(data, "tls.crt"), certificate, 0o600))
	must(m.w.t, os.WriteFile(filepath.Join(data, "tls.key"), key, 0o600))
	must(m.w.t, os.Symlink(filepath.Base(data), filepath.Join(m.dir, "..next")))
	must(m.w.t, os.Rename(filepath.Join(m.dir, "..next"), filepath.Join(m.dir, "..data")))
	if m.version == 1 {
		for _, name := range []string{"tls.crt", "tls.key"} {
			must(m.w.t, os.Symlink(filepath.Join("..data", name), filepath.Join(m.dir, name)))
		}
	}
}

func (m *mountedCert) renew() tls.Certificate {
	m.w.t.Helper()
	certificate := newCert(m.w.t)
	certFile, keyFile := m.w.writeCert(certificate)
	cert, err := os.ReadFile(certFile)
	must(m.w.t, err)
	key, err := os.ReadFile(keyFile)
	must(m.w.t, err)
	m.put(cert, key)
	return certificate
}

// serves tells whether a port shows the certificate to a new handshake.
func serves(port int, certificate tls.Certificate) error {
	config := trustAll()
	config.NextProtos = []string{"h2", "http/1.1"}
	conn, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if shown := conn.ConnectionState().PeerCertificates[0].Raw; string(shown) != string(certificate.Certificate[0]) {
		return fmt.Errorf("port %d shows another certificate", port)
	}
	return nil
}

// renewedWithin is a few times the two seconds that we promise.
const renewedWithin = 5 * time.Second

// A renewed certificate serves new handshakes, on one port or several, and over
// gRPC, without anybody being dropped; a broken one is told, and the one before goes
// on.
func TestCertificatesAreWatched(t *testing.T) {
	w := newWorld(t)
	mounted := &mountedCert{w: w, dir: t.TempDir()}
	first := mounted.renew()
	secured := map[string]any{"certificates": []any{map[string]any{"certificateFile": filepath.Join(mounted.dir, "tls.crt"), "keyFile": filepath.Join(mounted.dir, "tls.key")}}}
	var protocols []Protocol
	var ports []int
	for _, stream := range []map[string]any{
		{"network": "raw", "security": "tls", "tlsSettings": secured},
		{"network": "grpc", "security": "tls", "tlsSettings": secured, "grpcSettings": map[string]any{"serviceName": "s"}},
	} {
		p, err := w.core.AddInbound(w.ctx, "node", vlessInbound(0, stream))
		must(t, err)
		protocols, ports = append(protocols, p), append(ports, p.Port)
	}
	alice := w.subscriber("alice")
	w.start()
	target := w.target()
	var conns []net.Conn
	for i := range protocols {
		outbound := map[string]any{"protocol": "vless", "settings": vnext(ports[i], map[string]any{"id": alice.UUID, "encryption": "none"})}
		stream := map[string]any{"network": "raw", "security": "tls", "tlsSettings": map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": pin(first)}}
		if i == 1 {
			stream["network"], stream["grpcSettings"] = "grpc", map[string]any{"serviceName": "s"}
		}
		outbound["streamSettings"] = stream
		conn := w.dial(w.client(outbound), target)
		must(t, Exchange(conn, 1000, 1000))
		conns = append(conns, conn)
	}
	for range 2 { // the second one finds the loops where the first one left them
		renewed := mounted.renew()
		for _, port := range ports {
			must(t, Within(w.ctx, renewedWithin, func() error { return serves(port, renewed) }))
		}
		for _, conn := range conns {
			must(t, Exchange(conn, 1000, 1000))
		}
		first = renewed
	}
	mounted.put([]byte("garbage"), []byte("garbage"))
	must(t, Eventually(w.ctx, func() error {
		n, err := w.core.Node(w.ctx, "node")
		if err == nil && !strings.Contains(deref(n.LastError), "the one before goes on") {
			err = fmt.Errorf("last error %s", deref(n.LastError))
		}
		return err
	}))
	for i, port := range ports {
		must(t, serves(port, first))
		must(t, Exchange(conns[i], 1000, 1000))
	}
	last := mounted.renew()
	for _, port := range ports {
		must(t, Within(w.ctx, renewedWithin, func() error { return serves(port, last) }))
	}
}
