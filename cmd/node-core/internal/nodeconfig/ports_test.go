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
		"network in capitals":       {at("", "shadowsocks", `"settings":{"network":"TCP"}`), at("", "vless", ""), true},
		"a list of networks":        {at("", "shadowsocks", `"settings":{"network":["tcp","UDP"]}`), at("", "hysteria", ""), true},
		"network null":              {at("", "shadowsocks", `"settings":{"network":null}`), at("", "vless", ""), true},
		"a space in the list":       {at("", "shadowsocks", `"settings":{"network":"tcp, udp"}`), at("", "hysteria", ""), false},
		"TLS in capitals":           {at("", "vless", `"streamSettings":{"network":"xhttp","security":"TLS","tlsSettings":{"alpn":"h3"}}`), at("", "hysteria", ""), true},
		"localhost":                 {at("localhost", "vless", ""), at("127.0.0.1", "vmess", ""), true},
		"IPv6 in brackets":          {at("[::1]", "vless", ""), at("::1", "vmess", ""), true},
		"IPv6 in two spellings":     {at("2001:db8:0::1", "vless", ""), at("2001:db8::1", "vmess", ""), true},
		"IPv4 mapped into IPv6":     {at("::ffff:192.0.2.1", "vless", ""), at("192.0.2.1", "vmess", ""), true},
		"SOCKS' UDP":                {at("", "socks", `"settings":{"udp":true}`), at("", "hysteria", ""), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Collide(c.a, c.b); got != c.want || Collide(c.b, c.a) != c.want {
				t.Errorf("collide: %t, want %t", got, c.want)
			}
		})
	}
}
