package xray_test

import (
	"fmt"
	"strings"
	"testing"
)

// A feature that Xray has removed is refused with Xray's words about its successor.
func TestRemovedFeaturesAreNamed(t *testing.T) {
	r := newRig(t)
	outbound := func(protocol, settings, stream string) string {
		return fmt.Sprintf(`"outbounds":[{"tag":"direct","protocol":%q,"settings":{%s},"streamSettings":{%s}}]`, protocol, settings, stream)
	}
	inbound := func(protocol, settings, stream string) string {
		return fmt.Sprintf(`"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":%q,"settings":{%s},"streamSettings":{%s}}]`, r.port, protocol, settings, stream)
	}
	vless := func(stream string) string { return inbound("vless", `"decryption":"none"`, stream) }
	mask := func(kind, settings string) string {
		return vless(fmt.Sprintf(`"network":"kcp","finalmask":{"udp":[{"type":%q,"settings":{%s}}]}`, kind, settings))
	}
	server := func(users string) string {
		return `"vnext":[{"address":"192.0.2.1","port":443,"users":[` + users + `]}]`
	}
	for _, c := range []struct{ name, config, says string }{
		{"HTTP/2", vless(`"network":"h2"`), "migrated to XHTTP stream-one H2 & H3"},
		{"HTTP", vless(`"network":"http"`), "migrated to XHTTP stream-one H2 & H3"},
		{"QUIC", vless(`"network":"quic"`), "migrated to XHTTP stream-one H3"},
		{"a method of QUIC", vless(`"method":"quic"`), "migrated to XHTTP stream-one H3"},
		{"XTLS", vless(`"security":"xtls"`), "migrated to xtls-rprx-vision with TLS or REALITY"},
		{"a header of mKCP", vless(`"network":"kcp","kcpSettings":{"header":{"type":"dtls"}}`), "mkcp header & seed has been removed and migrated to finalmask/udp"},
		{"a seed of mKCP", vless(`"network":"kcp","kcpSettings":{"seed":"hush"}`), "mkcp header & seed has been removed"},
		{"header-dns", mask("header-dns", ``), `"header-dns" has been removed and migrated to "mkcp-legacy" with the header "dns"`},
		{"header-dtls", mask("header-dtls", ``), `"mkcp-legacy" with the header "dtls"`},
		{"header-srtp", mask("header-srtp", ``), `"mkcp-legacy" with the header "srtp"`},
		{"header-utp", mask("header-utp", ``), `"mkcp-legacy" with the header "utp"`},
		{"header-wechat", mask("header-wechat", ``), `"mkcp-legacy" with the header "wechat"`},
		{"header-wireguard", mask("header-wireguard", ``), `"mkcp-legacy" with the header "wireguard"`},
		{"mkcp-original", mask("mkcp-original", ``), `"mkcp-legacy" without settings`},
		{"mkcp-aes128gcm", mask("MKCP-aes128gcm", `"password":"p"`), `"mkcp-legacy" with the password as its value`},
		{"the domain of xdns", mask("xdns", `"domain":"a.test"`), "migrated to domains(server) & resolvers(client)"},
		{"a flow of Trojan", inbound("trojan", `"clients":[{"password":"hush-hush","flow":"xtls-rprx-direct"}]`, `"security":"none"`), "Flow for Trojan has been removed"},
		{"a cipher of Shadowsocks", inbound("shadowsocks", `"method":"none","password":"p"`, ``), "unknown cipher method: none"},
		{"the first Hysteria", outbound("hysteria", `"version":1,"address":"192.0.2.1","port":443`, ``), "version != 2"},
		{"ipsBlocked", outbound("freedom", `"ipsBlocked":["10.0.0.0/8"]`, ``), `"ipsBlocked" has been removed and migrated to "finalRules"`},
		{"a noise", outbound("freedom", `"noise":{"type":"rand","packet":"1-2"}`, ``), "migrated to noises = [ { ... } ]"},
		{"UDP over TCP", outbound("shadowsocks", `"servers":[{"address":"192.0.2.1","port":1,"method":"2022-blake3-aes-128-gcm","password":"AAAAAAAAAAAAAAAAAAAAAA==","uot":true}]`, ``), `"uot" has been removed`},
		{"certificates of anybody", outbound("vless", server(`{"id":"`+bobID+`","encryption":"none"}`), `"security":"tls","tlsSettings":{"allowInsecure":true}`), `"pinnedPeerCertSha256"(pcs) and "verifyPeerCertByName"(vcn)`},
		{"names of certificates", outbound("vless", server(`{"id":"`+bobID+`","encryption":"none"}`), `"security":"tls","tlsSettings":{"verifyPeerCertInNames":["a"]}`), `migrated to "verifyPeerCertByName"`},
		{"the place of a session", vless(`"network":"xhttp","xhttpSettings":{"sessionPlacement":"header"}`), `migrated to "sessionIDPlacement"`},
		{"the key of a session", vless(`"network":"xhttp","xhttpSettings":{"sessionKey":"a"}`), `migrated to "sessionIDKey"`},
		{"VLESS in the open", outbound("vless", `"address":"8.8.8.8","port":443,"id":"`+bobID+`","encryption":"none"`, ``), "vless without TLS or other encryption is prohibited"},
		{"Trojan in the open", outbound("trojan", `"address":"8.8.8.8","port":443,"password":"p"`, ``), "trojan without TLS is prohibited"},
		{"reverse", `"reverse":{}`, `migrated to "VLESS Reverse Proxy"`},
		{"transport", `"transport":{}`, "migrated to streamSettings in inbounds and outbounds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := parseReaching([]byte("{"+c.config+"}"), func(string) bool { return true })
			if err == nil {
				err = r.engine.Apply(t.Context(), s)
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			}
		})
	}
}
