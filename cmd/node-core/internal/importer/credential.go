package importer

import (
	"encoding/base64"
	"net/netip"
	"strings"
	"unicode"

	"nodeagent/coreapi"
)

// wrongCredential says why an inbound could not take a login; empty where it can. in is nil for an
// inbound that the panel does not describe.
func wrongCredential(l login, in *inbound) string {
	if in != nil && in.protocol != l.Protocol {
		return "the inbound is of another protocol"
	}
	for _, value := range append([]string{l.ID, l.Password, l.Flow, l.Method, l.PrivateKey, l.PublicKey, l.PreSharedKey}, l.AllowedIPs...) {
		if len(value) > maxText || strings.ContainsFunc(value, unicode.IsControl) {
			return "a credential is too long, or has control characters"
		}
	}
	switch l.Protocol {
	case "vless", "vmess":
		// A text of up to 30 bytes that is no UUID stands for one (xray-core, common/uuid/uuid.go, ParseString).
		if n := len(l.ID); n == 0 || n > 30 && canonical(l.ID) == l.ID && n != 36 || n > 36 {
			return "its id is no UUID"
		}
		if l.Flow != "" && l.Flow != "xtls-rprx-vision" {
			return "Xray has no flow " + printable(l.Flow, 40)
		}
	case "socks", "http", "mixed":
		if l.ID == "" || l.Password == "" {
			return "it has no user or no password"
		}
	case "wireguard":
		return wrongPeer(l.Credential)
	case "shadowsocks":
		return wrongShadowsocks(l.Credential, in)
	default:
		if l.Password == "" {
			return "it has no password"
		}
	}
	return ""
}

func wrongPeer(c coreapi.Credential) string {
	for _, key := range []string{c.PublicKey, c.PrivateKey, c.PreSharedKey} {
		if raw, err := base64.StdEncoding.DecodeString(key); key != "" && (err != nil || len(raw) != 32) {
			return "a key is not 32 bytes in base64"
		}
	}
	if c.PublicKey == "" || len(c.AllowedIPs) == 0 {
		return "it has no public key or no address"
	}
	for _, text := range c.AllowedIPs {
		if _, err := netip.ParsePrefix(text); err != nil {
			if _, err := netip.ParseAddr(text); err != nil {
				return printable(text, 40) + " is no address"
			}
		}
	}
	return ""
}

func wrongShadowsocks(c coreapi.Credential, in *inbound) string {
	method := c.Method
	if in != nil && strings.HasPrefix(in.method, "2022-") {
		method = in.method
	}
	switch {
	case c.Password == "":
		return "it has no password"
	case method == "2022-blake3-chacha20-poly1305":
		return "Xray has one client alone with " + method
	case strings.HasPrefix(method, "2022-"):
		size := 32
		if strings.Contains(method, "aes-128") {
			size = 16
		}
		if raw, err := base64.StdEncoding.DecodeString(c.Password); err != nil || len(raw) != size {
			return "its key has not the length that " + printable(method, 40) + " wants"
		}
	}
	return ""
}
