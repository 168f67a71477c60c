package nodeconfig

import (
	"encoding/json"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

func TestCollide(t *testing.T) {
	at := func(listen, protocol, rest string) corestore.Protocol {
		return corestore.Protocol{Listen: listen, Port: 443, Protocol: protocol, Config: json.RawMessage(`{` + rest + `}`)}
	}
	for name, c := range map[string]struct {
		a, b corestore.Protocol
		want bool
	}{
		"one address":               {at("127.0.0.1", "vless", ""), at("127.0.0.1", "vmess", ""), true},
		"all addresses and one":     {at("0.0.0.0", "vless", ""), at("127.0.0.1", "vmess", ""), true},
		"none is all":               {at("", "vless", ""), at("192.0.2.1", "vmess", ""), true},
		"two addresses":             {at("192.0.2.1", "vless", ""), at("192.0.2.2", "vmess", ""), false},
		"two of QUIC":               {at("", "hysteria", ""), at("", "hysteria", ""), true},
		"TCP and QUIC":              {at("", "vless", ""), at("", "hysteria", ""), false},
		"TCP and mKCP":              {at("", "vless", ""), at("", "vless", `"streamSettings":{"network":"kcp"}`), false},
		"TCP and XHTTP over QUIC":   {at("", "vless", ""), at("", "vless", `"streamSettings":{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3"]}}`), false},
		"Shadowsocks' UDP and it":   {at("", "shadowsocks", `"settings":{"network":"tcp,udp"}`), at("", "hysteria", ""), true},
		"MTProto and VLESS":         {at("", mtproto, ""), at("", "vless", ""), true},
		"Shadowsocks' TCP and QUIC": {at("", "shadowsocks", ""), at("", "hysteria", ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Collide(c.a, c.b); got != c.want || Collide(c.b, c.a) != c.want {
				t.Errorf("collide: %t, want %t", got, c.want)
			}
		})
	}
}
