package xraytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Renewal is a certificate and its key, as an ACME client writes them. Certificate is the
// chain, the leaf first.
type Renewal struct {
	Leaf             *x509.Certificate
	Certificate, Key []byte // PEM
}

// NewRenewal makes a certificate for site.test that is valid for an hour. The certificate
// by signs it; nil makes it self-signed. NewRenewal sets the template's serial number, names
// and validity.
func NewRenewal(t *testing.T, template x509.Certificate, by *tls.Certificate) Renewal {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.DNSNames = big.NewInt(time.Now().UnixNano()), []string{"site.test"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := &template, any(key)
	var chain []byte
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey
		chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: by.Leaf.Raw})
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Renewal{
		leaf, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), chain...),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}),
	}
}

// Authority is a certificate authority: it signs certificates and answers OCSP requests for
// them.
type Authority struct {
	tls.Certificate
	Life  time.Duration // how long an answer is valid
	Asked atomic.Int32  // how many requests have come
	Hold  chan struct{} // answers wait until it is closed; nil for no wait
}

// NewAuthority returns an authority with a new key, whose answers are valid for an hour.
func NewAuthority(t *testing.T) *Authority {
	t.Helper()
	own := NewRenewal(t, x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}, nil)
	pair, err := tls.X509KeyPair(own.Certificate, own.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{Certificate: pair, Life: time.Hour}
}

// Answer returns the OCSP answer that the certificate in question, an OCSP request in DER,
// is good.
func (a *Authority) Answer(question []byte) ([]byte, error) {
	request, err := ocsp.ParseRequest(question)
	if err != nil {
		return nil, err
	}
	return ocsp.CreateResponse(a.Leaf, a.Leaf, ocsp.Response{
		Status: ocsp.Good, SerialNumber: request.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(a.Life),
	}, a.PrivateKey.(crypto.Signer))
}

// Serve answers OCSP requests over HTTP until the test ends, and returns the URL.
func (a *Authority) Serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.Asked.Add(1)
		if a.Hold != nil {
			select {
			case <-a.Hold:
			case <-r.Context().Done():
				return
			}
		}
		question, err := io.ReadAll(r.Body)
		if err == nil {
			question, err = a.Answer(question)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(question)
	}))
	t.Cleanup(server.Close)
	return server.URL
}
