package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/state"
	"nodeagent/xray/trust"
	"nodeagent/xray/xraytest"
)

func TestTrustedProxies(t *testing.T) {
	inbound := func(protocol, more string) string {
		return fmt.Sprintf(`{"inbounds":[{"tag":"in-1","protocol":%q,"port":443,%s}]}`, protocol, more)
	}
	all := []string{"192.0.2.1/32", "192.0.2.0/24", "2001:db8::/32", "::1/128"}
	for name, c := range map[string]struct {
		config, says string
		networks     []string
	}{
		"none":                 {config: inbound("vless", `"listen":"::"`)},
		"null":                 {config: inbound("vless", `"trustedProxies":null`)},
		"all forms":            {config: inbound("vless", `"trustedProxies":["192.0.2.1","192.0.2.77/24","2001:db8::1/32","::1"]`), networks: all},
		"IPv4 in IPv6 form":    {config: inbound("vless", `"trustedProxies":["::ffff:192.0.2.1"]`), networks: all[:1]},
		"an empty list":        {config: inbound("vless", `"trustedProxies":[]`), says: "nobody would be let in"},
		"a name":               {config: inbound("vless", `"trustedProxies":["::1","proxy.example"]`), says: `trustedProxies[1]: "proxy.example"`},
		"a text":               {config: inbound("vless", `"trustedProxies":"192.0.2.1"`), says: "trustedProxies"},
		"a zone":               {config: inbound("vless", `"trustedProxies":["fe80::1%eth0"]`), says: "fe80::1%eth0"},
		"a network of both":    {config: inbound("vless", `"trustedProxies":["::ffff:192.0.2.0/120"]`), says: "::ffff:192.0.2.0/120"},
		"in capitals":          {config: inbound("vless", `"TrustedProxies":["::1"]`), says: `written "trustedProxies"`},
		"on a unix socket":     {config: inbound("vless", `"listen":"/run/x.sock","trustedProxies":["::1"]`), says: "/run/x.sock"},
		"over QUIC":            {config: inbound("hysteria", `"trustedProxies":["::1"]`), says: "over UDP"},
		"mKCP in capitals":     {config: inbound("vless", `"streamSettings":{"network":"KCP"},"trustedProxies":["::1"]`), says: "over UDP"},
		"QUIC in capitals":     {config: inbound("vless", `"streamSettings":{"network":"XHTTP","security":"TLS","tlsSettings":{"alpn":["h3"]}},"trustedProxies":["::1"]`), says: "over UDP"},
		"UDP in capitals":      {config: inbound("dokodemo-door", `"settings":{"network":"TCP,UDP"},"trustedProxies":["::1"]`), says: "over UDP"},
		"no port":              {config: inbound("tun", `"trustedProxies":["::1"]`), says: "listens on no port"},
		"over TCP and UDP":     {config: inbound("shadowsocks", `"settings":{"network":"tcp,udp"},"trustedProxies":["::1"]`), says: "over UDP"},
		"shadowsocks over TCP": {config: inbound("shadowsocks", `"settings":{"network":"tcp"},"trustedProxies":["::1"]`), networks: all[3:]},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := xraytest.Parse(c.config)
			if err == nil {
				err = Changed(state.State{}, s, time.Now())
			}
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "in-1") {
					t.Fatalf("error %v, want one with %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			proxies, err := trust.Proxies(s.Inbounds["in-1"])
			if err != nil {
				t.Fatal(err)
			}
			got := make([]string, 0, len(proxies))
			for _, network := range proxies {
				got = append(got, netip.Prefix.String(network))
			}
			if !slices.Equal(got, c.networks) {
				t.Errorf("networks %v, want %v", got, c.networks)
			}
		})
	}
}
