// Package certs provides the certificates with which Core serves nodes over TLS: a self-signed
// one that Core makes, or one from files, which may be renewed while Core runs.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

const (
	certName = "tls.crt"
	keyName  = "tls.key"
	// life is how long the certificate is valid. Agents check its pin and not its dates, and
	// with another certificate every node would have to be registered again.
	life = 20 * 365 * 24 * time.Hour
)

// LoadOrCreate reads the self-signed certificate in the folder dir and returns it with its
// pin. On the first start it makes it. The key is written before the certificate, so that a
// crash between the two leads to a new pair at the next start.
func LoadOrCreate(dir string) (tls.Certificate, string, error) {
	certPath, keyPath := filepath.Join(dir, certName), filepath.Join(dir, keyName)
	if err := Make(dir); err != nil {
		return tls.Certificate{}, "", err
	}
	cert, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err != nil {
		return cert, "", fmt.Errorf("read Core's certificate: %w; restore tls.crt and tls.key from a backup, or remove both and register every node again", err)
	}
	return cert, pinOf(cert), nil
}

// Make makes the certificate in the folder where there is none.
func Make(dir string) error {
	certPath, keyPath := filepath.Join(dir, certName), filepath.Join(dir, keyName)
	if _, err := os.Stat(certPath); errors.Is(err, fs.ErrNotExist) {
		return create(certPath, keyPath)
	}
	return nil
}

// pinOf returns the SHA-256 of the certificate (DER) in lower-case hex, as join tokens have it.
func pinOf(cert tls.Certificate) string {
	sum := sha256.Sum256(cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}

func create(certPath, keyPath string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("create Core's key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("create Core's certificate: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "node-core"}, DNSNames: []string{"node-core"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("create Core's certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode Core's key: %w", err)
	}
	// LoadOrCreate takes the certificate's file as the sign that both files exist.
	if err := writePEM(keyPath, "PRIVATE KEY", keyDER, 0o600); err != nil {
		return err
	}
	return writePEM(certPath, "CERTIFICATE", der, 0o644)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	// The temporary file stands in the same folder: the key never passes through /tmp.
	if err := renameio.WriteFile(path, data, mode, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("write %s of Core's certificate: %w", path, err)
	}
	return nil
}
