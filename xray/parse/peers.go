package parse

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strings"
)

// PublicKeyOf returns the public key of a peer in base64. Xray accepts several forms of base64,
// and hex. A text that is no key is returned as it is; the result is empty for a peer
// without a key.
func PublicKeyOf(account json.RawMessage) string {
	var peer accountMembers
	if json.Unmarshal(account, &peer) != nil {
		return ""
	}
	return publicKey(peer.PublicKey)
}

func publicKey(text string) string {
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == publicKeySize {
		return base64.StdEncoding.EncodeToString(raw)
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	if raw, err := base64.RawStdEncoding.DecodeString(plain); err == nil && len(raw) == publicKeySize {
		return base64.StdEncoding.EncodeToString(raw)
	}
	return text // xray-core refuses it by name
}

// withoutPrivateKey removes the private key of a peer, which panels write for the client's
// configuration. Xray does not use it, and it would let anyone connect as that client. It
// reports whether the peer had one.
func withoutPrivateKey(peer map[string]json.RawMessage) (had bool) {
	before := len(peer)
	maps.DeleteFunc(peer, func(name string, _ json.RawMessage) bool { return strings.EqualFold(name, "privateKey") })
	return len(peer) < before
}

const publicKeySize = 32 // bytes, of Curve25519
