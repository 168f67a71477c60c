package coreapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
)

// errWrongPin means that the certificate of Core is not the one that was named.
var errWrongPin = errors.New("the certificate is not the one that the pin names; 'node-core token add' prints the pin of Core's own certificate")

// tlsConfig trusts only the certificate with the pin. Without a pin it trusts the system's
// authorities.
func tlsConfig(pin string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if pin == "" {
		return config, nil
	}
	want, err := hex.DecodeString(pin)
	if err != nil || len(want) != sha256.Size {
		return nil, fmt.Errorf("read the pin of Core's certificate %q: it is not a SHA-256 hash in hex", pin)
	}
	config.InsecureSkipVerify = true //nolint:gosec // the pin decides, below
	config.VerifyConnection = func(state tls.ConnectionState) error {
		have := sha256.Sum256(state.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare(have[:], want) != 1 {
			return errWrongPin
		}
		return nil
	}
	return config, nil
}
