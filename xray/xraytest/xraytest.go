package xraytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// UUIDs of the tests' clients.
const (
	// UUIDA and UUIDB are the ids of two clients.
	UUIDA = "11111111-1111-4111-8111-111111111111"
	UUIDB = "22222222-2222-4222-8222-222222222222"
	// UUIDA2 differs from UUIDA only in bytes 6 and 7, which Xray ignores.
	UUIDA2 = "11111111-1111-9999-8111-111111111111"
)

// Parse parses a services.xray object. known are the keys of the client map.
func Parse(text string, known ...string) (state.State, error) {
	return parse.Service(json.RawMessage(text), func(key string) bool {
		return slices.Contains(known, key)
	})
}

// CertificatePair makes a self-signed certificate for site.test that is valid between from
// and to, and its key, both in PEM.
func CertificatePair(t *testing.T, from, to time.Time) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"site.test"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// OperationsText writes operations for tables: "add_users in +a +b; remove_users in -c".
func OperationsText(ops []state.Operation) string {
	var lines []string
	for _, op := range ops {
		words := []string{strings.TrimSpace(string(op.Kind) + " " + op.Tag)}
		for _, user := range op.Users {
			words = append(words, "+"+user.Email)
		}
		for _, email := range op.Emails {
			words = append(words, "-"+email)
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return strings.Join(lines, "; ")
}

// After returns the state that the operations lead to from s.
func After(s state.State, ops []state.Operation) state.State {
	for _, op := range ops {
		s = s.After(op)
	}
	return s
}
