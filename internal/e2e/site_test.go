package e2e

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// siteName is the name in the certificate of httptest's servers.
const siteName = "example.com"

// streams are the stream settings of a server and of its stock client.
type streams struct{ server, client map[string]any }

// secureStreams returns stream settings for TLS and for REALITY with one certificate. REALITY
// borrows a site that does not log the many connections which end early.
func secureStreams(tb testing.TB) (overTLS, reality streams) {
	tb.Helper()
	site := httptest.NewUnstartedServer(http.NotFoundHandler())
	site.TLS = &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
	site.Config.ErrorLog = log.New(io.Discard, "", 0)
	site.StartTLS()
	tb.Cleanup(site.Close)
	cert := site.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}
	overTLS.server = secured(nil, true, map[string]any{"certificates": []any{map[string]any{
		"certificate": pemLines("CERTIFICATE", cert.Certificate[0]), "key": pemLines("PRIVATE KEY", key),
	}}})
	overTLS.client = secured(nil, true, map[string]any{"serverName": siteName, "pinnedPeerCertSha256": pin(cert)})

	secret, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	reality.server = map[string]any{"network": "raw", "security": "reality", "realitySettings": map[string]any{
		"dest": site.Listener.Addr().String(), "serverNames": []any{siteName}, "shortIds": []any{"00"}, "privateKey": encode(secret.Bytes()),
	}}
	reality.client = map[string]any{"network": "raw", "security": "reality", "realitySettings": map[string]any{
		"serverName": siteName, "publicKey": encode(secret.PublicKey().Bytes()), "shortId": "00", "fingerprint": "chrome",
	}}
	return overTLS, reality
}

// pemLines returns a PEM block as Xray's JSON has it, a list of lines.
func pemLines(kind string, der []byte) []string {
	return strings.Split(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))), "\n")
}
