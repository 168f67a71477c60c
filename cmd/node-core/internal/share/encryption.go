package share

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"encoding/base64"
	"strings"
)

// clientEncryption returns the client's side of the member "decryption" of a VLESS inbound. Both
// are words with dots between them: the method, how keys look on the wire, how long a ticket
// serves, paddings, and keys (xray-core, infra/conf/vless.go). Where the inbound has private keys,
// the client has the public ones.
func clientEncryption(decryption string) (string, error) {
	if decryption == "" || decryption == "none" {
		return "none", nil
	}
	words := strings.Split(decryption, ".")
	const fixed, shortestKey = 3, 20 // a shorter word is a padding
	if len(words) <= fixed {
		return "", unavailable("the decryption of the VLESS inbound has %d words, want at least %d", len(words), fixed+1)
	}
	// Without tickets a client can't return in 0-RTT.
	if words[2] = "0rtt"; strings.HasPrefix(strings.Split(decryption, ".")[2], "0") {
		words[2] = "1rtt"
	}
	for i, word := range words[fixed:] {
		if len(word) < shortestKey {
			continue
		}
		public, err := publicHalf(word)
		if err != nil {
			return "", err
		}
		words[fixed+i] = public
	}
	return strings.Join(words, "."), nil
}

// publicHalf returns the public key of a private one of X25519 (32 bytes) or of ML-KEM-768 (a seed
// of 64 bytes), all in base64url.
func publicHalf(word string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(word)
	if err != nil {
		return "", unavailable("a key in the decryption of the VLESS inbound is not base64url")
	}
	var public []byte
	switch len(raw) {
	case 32:
		key, err := ecdh.X25519().NewPrivateKey(raw)
		if err != nil {
			return "", unavailable("a key in the decryption of the VLESS inbound is none of X25519")
		}
		public = key.PublicKey().Bytes()
	case mlkem.SeedSize:
		key, err := mlkem.NewDecapsulationKey768(raw)
		if err != nil {
			return "", unavailable("a key in the decryption of the VLESS inbound is none of ML-KEM-768")
		}
		public = key.EncapsulationKey().Bytes()
	default:
		return "", unavailable("a key in the decryption of the VLESS inbound has %d bytes, want 32 or %d", len(raw), mlkem.SeedSize)
	}
	return base64.RawURLEncoding.EncodeToString(public), nil
}
