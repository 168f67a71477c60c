package coreclient

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
)

const tlsHint = "use the join token that 'node-core node add' prints (it names Core's certificate), or name Core's authority with --core-ca FILE"

// errWrongPin means that the certificate of Core is not the one that the join token pins.
var errWrongPin = errors.New("the certificate is not the one that the join token names")

// tlsConfig trusts only the certificate with the pin. Without a pin, it trusts the system's
// authorities and those of caPEM.
func tlsConfig(pin, caPEM string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if caPEM != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM([]byte(caPEM)) {
			return nil, errors.New("read Core's authority: the file has no PEM certificate")
		}
		cfg.RootCAs = pool
	}
	if pin == "" {
		return cfg, nil
	}
	want, err := hex.DecodeString(pin)
	if err != nil || len(want) != sha256.Size {
		return nil, fmt.Errorf("read Core's pin: it is not a SHA-256 hash in hex")
	}
	cfg.InsecureSkipVerify = true //nolint:gosec // the pin decides, below
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		have := sha256.Sum256(state.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare(have[:], want) != 1 {
			return errWrongPin
		}
		return nil
	}
	return cfg, nil
}

// isTLSError tells whether the certificate, or TLS itself, is why a connection failed. Another
// try does not help.
func isTLSError(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	return verification || record || authority || errors.Is(err, errWrongPin)
}
