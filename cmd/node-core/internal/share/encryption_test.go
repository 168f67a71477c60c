package share

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"encoding/base64"
	"testing"
)

// A client of VLESS encryption has the public halves of the inbound's keys, and the same paddings.
func TestClientEncryption(t *testing.T) {
	text := base64.RawURLEncoding.EncodeToString
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	private, public := text(x25519.Bytes()), text(x25519.PublicKey().Bytes())
	for decryption, want := range map[string]string{
		"none": "none",
		"":     "none",
		"mlkem768x25519plus.native.600s." + private:                               "mlkem768x25519plus.native.0rtt." + public,
		"mlkem768x25519plus.random.0s.100-111-1111." + private:                    "mlkem768x25519plus.random.1rtt.100-111-1111." + public,
		"mlkem768x25519plus.xorpub.300-600s." + private + "." + text(kem.Bytes()): "mlkem768x25519plus.xorpub.0rtt." + public + "." + text(kem.EncapsulationKey().Bytes()),
	} {
		if got, err := clientEncryption(decryption); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", decryption, got, err, want)
		}
	}
}
