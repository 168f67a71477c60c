package xray_test

import (
	"crypto/x509"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"nodeagent/internal/testfiles"
	"nodeagent/xray"
	"nodeagent/xray/xraytest"
)

// awaitStaple fails the test where new handshakes have no good answer soon.
func awaitStaple(t *testing.T, port int, a *xraytest.Authority, want xraytest.Renewal) {
	t.Helper()
	for deadline := time.Now().Add(newsWithin); ; time.Sleep(20 * time.Millisecond) {
		state, err := handshake(port)
		if err == nil {
			_, err = ocsp.ParseResponseForCert(state.OCSPResponse, want.Leaf, a.Leaf)
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no staple within %s: %v", newsWithin, err)
		}
	}
}

// A certificate with ocspStapling is renewed as others are, does not wait for its
// answer, and has it when that comes. A broken one is told.
func TestStapledCertificateIsRenewed(t *testing.T) {
	r, dir, port, a := newRig(t), t.TempDir(), freePort(t), xraytest.NewAuthority(t)
	url := a.Serve(t)
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func() xraytest.Renewal {
		c := xraytest.NewRenewal(t, x509.Certificate{OCSPServer: []string{url}}, &a.Certificate)
		testfiles.Replace(t, key, c.Key)
		testfiles.Replace(t, certificate, c.Certificate)
		return c
	}
	first := renew()
	r.apply(r.secured(port, certificate, key, `,"ocspStapling":3600`))
	awaitStaple(t, port, a, first)

	second := renew()
	awaitHandshake(t, port, "renewed", second)
	awaitStaple(t, port, a, second)

	testfiles.Replace(t, certificate, []byte("garbage"))
	r.eventually("the broken one is told", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.failed, func(f xray.Failure) bool { return strings.Contains(f.Message, "the one before goes on") })
	})
	awaitStaple(t, port, a, second)
	if n := a.Asked.Load(); n != 2 {
		t.Errorf("the authority was asked %d times, want once for each certificate", n)
	}
}

func TestRenewalWaitsForNoAnswer(t *testing.T) {
	r, dir, port, a := newRig(t), t.TempDir(), freePort(t), xraytest.NewAuthority(t)
	a.Hold = make(chan struct{})
	url := a.Serve(t)
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func() xraytest.Renewal {
		c := xraytest.NewRenewal(t, x509.Certificate{OCSPServer: []string{url}}, &a.Certificate)
		testfiles.Replace(t, key, c.Key)
		testfiles.Replace(t, certificate, c.Certificate)
		return c
	}
	renew()
	r.apply(r.secured(port, certificate, key, `,"ocspStapling":3600`))
	second := renew()
	awaitHandshake(t, port, "renewed", second)
	if state, err := handshake(port); err != nil || len(state.OCSPResponse) > 0 {
		t.Errorf("%v, a staple of %d bytes before there is an answer", err, len(state.OCSPResponse))
	}
	close(a.Hold)
	awaitStaple(t, port, a, second)
}
