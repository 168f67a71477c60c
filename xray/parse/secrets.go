package parse

import (
	"encoding/hex"
	"hash/maphash"
	"strings"

	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// CipherOf is a Shadowsocks method without the ways in which Xray lets it be written.
func CipherOf(protocol, method string) string {
	if protocol != "shadowsocks" {
		return ""
	}
	return strings.NewReplacer("aead_", "", "_", "-", "-ietf", "").Replace(strings.ToLower(method))
}

// SecretText is the same text for all ways in which Xray takes one secret of the protocol to
// be written. An auth of Hysteria that is a UUID is one without its bytes 6 and 7, which
// choose a route (proxy/hysteria/account/config.go:91).
func SecretText(protocol, secret string) string {
	if protocol != "hysteria" {
		return secret
	}
	text := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(secret), "urn:uuid:"), "{"), "}")
	id, err := uuidOf([]byte(text))
	if err != nil {
		return secret
	}
	routed := routed(id)
	return hex.EncodeToString(routed[:])
}

// hashSecret is the same for two clients that prove themselves with the same: a hundred
// thousand are compared by it, and not read again.
func hashSecret(protocol string, members []rawjson.Member) uint64 {
	var h maphash.Hash
	h.SetSeed(shapeSeed)
	for _, name := range []string{state.Protocols[protocol].Secret, "method"} {
		if m := rawjson.Find(members, name); m != nil {
			text, _ := m.Text()
			if name == "method" {
				text = CipherOf(protocol, text)
			} else {
				text = SecretText(protocol, text)
			}
			_, _ = h.WriteString(text)
		}
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}
