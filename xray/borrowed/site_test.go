package borrowed

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/xraytest"
)

// serveTLS is a site with the certificate of site.test. The connections begin with the line
// that it expects.
func serveTLS(t *testing.T, first string, expires time.Time, change func(*tls.Config)) Site {
	t.Helper()
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-48*time.Hour), expires)
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	change(config)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				in := bufio.NewReader(raw)
				got := make([]byte, len(first))
				if _, err := in.Read(got[:min(1, len(got))]); err != nil && first != "" {
					return
				}
				if first != "" {
					_, _ = in.Discard(len(first) - 1)
				}
				_ = tls.Server(buffered{raw, in}, config).Handshake()
			}()
		}
	}()
	return Site{Network: "tcp", Address: listener.Addr().String(), Names: []string{"site.test"}}
}

type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

func TestProbe(t *testing.T) {
	same := func(*tls.Config) {}
	later := time.Now().Add(time.Hour)
	good := serveTLS(t, "", later, same)
	behind := serveTLS(t, "PROXY UNKNOWN\r\n", later, same)
	behind.Xver = 1
	other := good
	other.Names = []string{"site.test", "other.test"}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for _, c := range []struct {
		name string
		site Site
		says []string // nothing: the site fits
	}{
		{"fits", good, nil},
		{"fits behind the PROXY protocol", behind, nil},
		{"is not there", Site{Network: "tcp", Address: closed.Addr().String(), Names: []string{"site.test"}}, []string{"cannot be reached", nobody}},
		{"has TLS 1.2 alone", serveTLS(t, "", later, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), []string{"TLS 1.3", nobody}},
		{"has no HTTP/2", serveTLS(t, "", later, func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), []string{"no HTTP/2", "clients connect"}},
		{"is another one", other, []string{`not for "other.test"`, "clients connect"}},
		{"has expired", serveTLS(t, "", time.Now().Add(-time.Hour), same), []string{"has expired", "clients connect"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := Probe(ctx, c.site)
		cancel()
		if (err == nil) != (c.says == nil) {
			t.Errorf("a site that %s: %v", c.name, err)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("a site that %s: %v does not say %q", c.name, err, part)
			}
		}
	}
}
