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

	"nodeagent/coreclient/wire"
)

// mountedCert is a certificate in a folder as Kubernetes mounts a secret: the files are
// symbolic links through a link to a folder, and a renewal replaces that link.
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
	return m.w.certificateIn(m.put)
}

// certbotCert is a certificate as certbot keeps it: the files are symbolic links into a folder
// with numbered files, and a renewal replaces one link after the other.
type certbotCert struct {
	t       *testing.T
	dir     string
	version int
}

func (c *certbotCert) live(name string) string {
	return filepath.Join(c.dir, "live", "site.test", name)
}

func (c *certbotCert) put(certificate, key []byte) {
	c.t.Helper()
	c.version++
	contents := map[string][]byte{"fullchain": certificate, "privkey": key}
	for name, content := range contents {
		archived := filepath.Join("archive", "site.test", fmt.Sprintf("%s%d.pem", name, c.version))
		must(c.t, os.MkdirAll(filepath.Join(c.dir, filepath.Dir(archived)), 0o700))
		must(c.t, os.WriteFile(filepath.Join(c.dir, archived), content, 0o600))
	}
	for name := range contents {
		link := c.live(name + ".pem")
		must(c.t, os.MkdirAll(filepath.Dir(link), 0o700))
		must(c.t, os.RemoveAll(link))
		must(c.t, os.Symlink(filepath.Join("..", "..", "archive", "site.test", fmt.Sprintf("%s%d.pem", name, c.version)), link))
	}
}

// certificateIn makes a certificate and writes its files with put.
func (w *world) certificateIn(put func(certificate, key []byte)) tls.Certificate {
	w.t.Helper()
	certificate := newCert(w.t)
	certFile, keyFile := w.writeCert(certificate)
	cert, err := os.ReadFile(certFile)
	must(w.t, err)
	key, err := os.ReadFile(keyFile)
	must(w.t, err)
	put(cert, key)
	return certificate
}

// A certificate that certbot renews serves new handshakes, and no connection is dropped.
func TestCertbotsLinksAreWatched(t *testing.T) {
	t.Parallel()
	w := newScriptedWorld(t, quickConfig)
	kept := &certbotCert{t: t, dir: t.TempDir()}
	first := w.certificateIn(kept.put)
	port, err := FreePort()
	must(t, err)
	in := vlessInbound(port, map[string]any{"network": "raw", "security": "tls", "tlsSettings": map[string]any{
		"certificates": []any{map[string]any{"certificateFile": kept.live("fullchain.pem"), "keyFile": kept.live("privkey.pem")}},
	}})
	w.serve(map[string]wire.ClientRef{soleClient: {UserID: 1}}, map[string]any{
		"inbounds": []any{with(withClients(in, []any{map[string]any{"id": soleClient}}), "tag", "in-1")},
	})
	must(t, serves(port, first))
	client := w.client(map[string]any{"protocol": "vless", "settings": soleSettings(port), "streamSettings": map[string]any{
		"network": "raw", "security": "tls", "tlsSettings": map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": pin(first)},
	}})
	conn := w.dial(client, w.target())
	must(t, Exchange(conn, 1000, 1000))
	for range 2 {
		renewed := w.certificateIn(kept.put)
		must(t, Within(w.ctx, renewedWithin, func() error { return serves(port, renewed) }))
		must(t, Exchange(conn, 1000, 1000))
	}
}

// serves checks that a new handshake with a port shows the certificate.
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

// renewedWithin is a few times the two seconds that operators are promised.
const renewedWithin = 5 * time.Second

// A renewed certificate serves new handshakes, on one port and on several, and over gRPC, and
// no connection is dropped. A broken certificate is reported, and the old one stays.
func TestCertificatesAreWatched(t *testing.T) {
	t.Parallel()
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
	for range 2 { // the second renewal meets the watches as the first one left them
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
