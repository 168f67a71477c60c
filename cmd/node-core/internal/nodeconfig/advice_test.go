package nodeconfig

import (
	"encoding/json"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

func TestInTheOpen(t *testing.T) {
	for _, c := range []struct {
		protocol, listen, config string
		open                     bool
	}{
		{"vless", "0.0.0.0", `{}`, true},
		{"vless", "", `{"settings":{"decryption":"none"},"streamSettings":{"network":"ws","security":"none"}}`, true},
		{"trojan", "192.0.2.1", `{}`, true},
		{"vless", "127.0.0.1", `{}`, false},
		{"vless", "::1", `{}`, false},
		{"vless", "/run/vless", `{}`, false},
		{"vless", "0.0.0.0", `{"settings":{"decryption":"mlkem768x25519plus.native.600s.x"}}`, false},
		{"vless", "0.0.0.0", `{"streamSettings":{"security":"TLS"}}`, false},
		{"trojan", "0.0.0.0", `{"streamSettings":{"security":"reality"}}`, false},
		{"shadowsocks", "0.0.0.0", `{}`, false},
		{mtproto, "0.0.0.0", `{}`, false},
	} {
		p := corestore.Protocol{Protocol: c.protocol, Listen: c.listen, Config: json.RawMessage(c.config)}
		if text := InTheOpen(p); (text != "") != c.open {
			t.Errorf("%+v: %q", c, text)
		}
	}
}
