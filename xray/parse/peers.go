package parse

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strings"
)

// PublicKeyOf is a peer's, in one way of writing where Xray takes several (base64 and
// hex); empty where it has none.
func PublicKeyOf(account json.RawMessage) string {
	var peer accountMembers
	if json.Unmarshal(account, &peer) != nil {
		return ""
	}
	text := peer.PublicKey
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == publicKeySize {
		return base64.StdEncoding.EncodeToString(raw)
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	if raw, err := base64.RawStdEncoding.DecodeString(plain); err == nil && len(raw) == publicKeySize {
		return base64.StdEncoding.EncodeToString(raw)
	}
	return text // Xray says what is wrong with it
}

// withoutPrivateKey takes out of a peer what panels write for the client's own file: Xray
// has no use for it, and whoever reads it could be the client.
func withoutPrivateKey(peer map[string]json.RawMessage) (had bool) {
	before := len(peer)
	maps.DeleteFunc(peer, func(name string, _ json.RawMessage) bool { return strings.EqualFold(name, "privateKey") })
	return len(peer) < before
}

const publicKeySize = 32 // bytes, of Curve25519
