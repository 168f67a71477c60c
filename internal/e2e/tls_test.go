package e2e

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func trustAll() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

func newCert(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{"site.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func pin(cert tls.Certificate) string {
	sum := sha256.Sum256(cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// httpsSite is a site that REALITY borrows.
func (w *world) httpsSite() (address string, cert tls.Certificate) {
	w.t.Helper()
	cert = newCert(w.t)
	site := httptest.NewUnstartedServer(http.NotFoundHandler())
	site.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
	site.Config.ErrorLog = log.New(io.Discard, "", 0) // REALITY ends most handshakes early
	site.StartTLS()
	w.t.Cleanup(site.Close)
	return strings.TrimPrefix(site.URL, "https://"), cert
}

func (w *world) writeCert(cert tls.Certificate) (certFile, keyFile string) {
	w.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	must(w.t, err)
	certFile, keyFile = filepath.Join(w.dir, "site.crt"), filepath.Join(w.dir, "site.key")
	must(w.t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600))
	must(w.t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	return certFile, keyFile
}

func TestGRPCOverReality(t *testing.T) {
	w := newWorld(t)
	site, _ := w.httpsSite()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	text := base64.RawURLEncoding.EncodeToString
	service := map[string]any{"serviceName": "svc"}
	p, err := w.core.AddInbound(w.ctx, "node", vlessInbound(0, map[string]any{
		"network": "grpc", "grpcSettings": service, "security": "reality", "realitySettings": map[string]any{
			"dest": site, "serverNames": []any{"site.test"}, "privateKey": text(key.Bytes()), "shortIds": []any{"01"},
		},
	}))
	must(t, err)
	alice := w.subscriber("alice")
	w.start()
	client := w.client(map[string]any{
		"protocol": "vless", "settings": vnext(p.Port, map[string]any{"id": alice.UUID, "encryption": "none"}),
		"streamSettings": map[string]any{"network": "grpc", "grpcSettings": service, "security": "reality", "realitySettings": map[string]any{
			"serverName": "site.test", "fingerprint": "chrome", "password": text(key.PublicKey().Bytes()), "shortId": "01",
		}},
	})
	target := w.target()
	must(t, client.Exchange(target.Addr(), 1_000_003, 2_000_029))
	w.stopAgent()
	w.wantUsage(map[Account]Traffic{{alice.UserID, p.ID}: target.Traffic()})
}
