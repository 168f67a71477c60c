package parse

import (
	"encoding/hex"
	"strings"

	"github.com/cespare/xxhash/v2"

	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// CipherOf returns one spelling of a Shadowsocks method, of which Xray accepts several. It is
// empty for other protocols.
func CipherOf(protocol, method string) string {
	if protocol != "shadowsocks" {
		return ""
	}
	return strings.NewReplacer("aead_", "", "_", "-", "-ietf", "").Replace(strings.ToLower(method))
}

// SecretText returns one spelling of a client's secret. Two secrets that Xray takes for one
// have the same spelling. For an auth of Hysteria that is a UUID, Xray ignores bytes 6 and 7,
// which choose a route (proxy/hysteria/account/config.go:91).
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

// hashSecret returns a hash that is equal for clients with the same secret. A hundred thousand
// clients are compared by it, without decoding them again.
func hashSecret(protocol string, members []rawjson.Member) uint64 {
	var h xxhash.Digest
	h.Reset()
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
		_, _ = h.WriteString("\x00")
	}
	return h.Sum64()
}
