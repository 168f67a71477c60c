package xray_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/apernet/quic-go"
)

// A crowd that shakes hands keeps a worker from its pings, with hardly a call that the
// kernel counts for it: it is busy all the same, and is not ended.
func TestACrowdOverQUICEndsNoWorker(t *testing.T) {
	const (
		crowd    = 200
		longFor  = 4 * time.Second
		keyBits  = 4096 // such a signature takes milliseconds
		protocol = "h3"
	)
	r := newRig(t)
	port := freePort(t)
	certificate, key := rsaCertificate(t, keyBits)
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"hysteria","settings":{"version":2,"clients":[{"auth":"a"}]},
		"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2},"security":"tls","tlsSettings":{"alpn":[%q],"certificates":[{"certificateFile":%q,"keyFile":%q}]}}}]}`,
		port, protocol, certificate, key)), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	r.apply(s)
	pid := r.engine.Status().PID
	ctx, cancel := context.WithTimeout(t.Context(), longFor)
	defer cancel()
	var dialing sync.WaitGroup
	for range crowd {
		dialing.Go(func() {
			for ctx.Err() == nil {
				conn, err := quic.DialAddr(ctx, fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}, nil)
				if err == nil {
					_ = conn.CloseWithError(0, "")
				}
			}
		})
	}
	dialing.Wait()
	if now := r.engine.Status().PID; now != pid {
		t.Errorf("worker %d was replaced by %d", pid, now)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) > 0 {
		t.Errorf("told failures %+v", r.failed)
	}
}

// rsaCertificate writes a certificate and its key into files.
func rsaCertificate(t *testing.T, bits int) (certificate, key string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("certificate", "CERTIFICATE", der), write("key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(private))
}
