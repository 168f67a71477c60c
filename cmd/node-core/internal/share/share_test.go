package share

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// reach reads an inbound and gives the endpoint an address and the secrets of a client.
func reach(t *testing.T, protocol, config string) (Endpoint, error) {
	t.Helper()
	e, err := Read(Inbound{Protocol: protocol, Config: json.RawMessage(config)})
	e.Name, e.Host, e.Port = "fra1-"+protocol, "fra1.example", 443
	switch e.Protocol {
	case "vless", "vmess":
		e.Account.ID = "u"
	case "socks", "http":
		e.Account.ID, e.Account.Password = "u", "p:1"
	default:
		e.Account.Password += "p"
	}
	return e, err
}

func mustReach(t *testing.T, protocol, config string) Endpoint {
	t.Helper()
	e, err := reach(t, protocol, config)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A link has everything that the inbound needs of a client, whichever of Xray's words the inbound
// uses, and nothing that only servers have.
func TestLinkQueries(t *testing.T) {
	for name, c := range map[string]struct {
		stream string
		want   string // of the query, beside encryption=none; sorted by name, not escaped
	}{
		"raw header": {
			`{"network":"tcp","tcpSettings":{"acceptProxyProtocol":true,"header":{"type":"http","request":{"path":["/a","/b"],"headers":{"Host":["h.example"]}}}}}`,
			"headerType=http host=h.example path=/a security=none type=tcp",
		},
		"Host among the headers": {
			`{"network":"ws","wsSettings":{"path":"/w?ed=2048","headers":{"Host":"h.example"}}}`,
			"host=h.example path=/w?ed=2048 security=none type=ws",
		},
		"XHTTP's further members": {
			`{"network":"xhttp","xhttpSettings":{"path":"/x y","mode":"packet-up","xPaddingBytes":"100-1000","scMaxBufferedPosts":30,"noSSEHeader":true,"headers":{}}}`,
			`extra={"xPaddingBytes":"100-1000"} mode=packet-up path=/x y security=none type=xhttp`,
		},
		"XHTTP's extra wins": {
			`{"network":"splithttp","splithttpSettings":{"path":"/x","xPaddingBytes":"1-2","extra":{"seqKey":"k","host":"no"}}}`,
			`extra={"seqKey":"k"} path=/x security=none type=xhttp`,
		},
		"masks of mKCP": {
			`{"network":"mkcp","kcpSettings":{"mtu":1300},"finalmask":{"udp":[ {"type":"mkcp-legacy"} ]}}`,
			`fm={"udp":[{"type":"mkcp-legacy"}]} security=none type=kcp`,
		},
		"TLS in capitals, ALPN as one text": {
			`{"security":"TLS","TLSSettings":{"serverName":"a.example","alpn":"h2,http/1.1"}}`,
			"alpn=h2,http/1.1 security=tls sni=a.example type=tcp",
		},
		"no HTTP/2 over WebSocket": {
			`{"network":"WS","security":"tls","tlsSettings":{"alpn":["h2","http/1.1"]}}`, "alpn=http/1.1 security=tls type=ws",
		},
		"no HTTP/3 beside HTTP/2": {
			`{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3","h2"]}}`, "alpn=h2 security=tls type=xhttp",
		},
		"HTTP/3 alone": {
			`{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3"]}}`, "alpn=h3 security=tls type=xhttp",
		},
		"method and null": {
			`{"method":"grpc","network":"ws","grpcSettings":{"serviceName":"s","authority":"a","multiMode":true},"tlsSettings":null,"finalmask":null}`,
			"authority=a mode=multi security=none serviceName=s type=grpc",
		},
	} {
		t.Run(name, func(t *testing.T) {
			link, err := Link(mustReach(t, "vless", `{"settings":{"decryption":"none"},"streamSettings":`+c.stream+`}`))
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(link)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for name, values := range u.Query() {
				if name != "encryption" {
					got = append(got, name+"="+values[0])
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, " "), c.want)
			}
			if strings.Contains(link, "+") {
				t.Errorf("%s has a plus sign, which clients don't take for a space", link)
			}
		})
	}
}

// Whole links of the other protocols.
func TestLinks(t *testing.T) {
	const key = "AAAAAAAAAAAAAAAAAAAAAA=="
	for name, c := range map[string]struct{ protocol, config, want string }{
		"trojan":               {"trojan", `{"streamSettings":{"security":"tls"}}`, "trojan://p@fra1.example:443?security=tls&type=tcp#fra1-trojan"},
		"shadowsocks":          {"shadowsocks", `{"settings":{"method":"aes-256-gcm"}}`, "ss://" + base64.RawURLEncoding.EncodeToString([]byte("aes-256-gcm:p")) + "@fra1.example:443#fra1-shadowsocks"},
		"shadowsocks 2022":     {"shadowsocks", `{"settings":{"method":"2022-blake3-aes-128-gcm","password":"` + key + `"}}`, "ss://2022-blake3-aes-128-gcm:AAAAAAAAAAAAAAAAAAAAAA%3D%3D%3Ap@fra1.example:443#fra1-shadowsocks"},
		"hysteria":             {"hysteria", `{"streamSettings":{"network":"hysteria","security":"tls","tlsSettings":{"serverName":"a.example"}}}`, "hysteria2://p@fra1.example:443?alpn=h3&sni=a.example#fra1-hysteria"},
		"hysteria, salamander": {"hysteria", `{"streamSettings":{"network":"hysteria","security":"tls","finalmask":{"udp":[{"type":"salamander","settings":{"password":"a b"}}]}}}`, "hysteria2://p@fra1.example:443?alpn=h3&obfs=salamander&obfs-password=a%20b#fra1-hysteria"},
		"socks":                {"mixed", `{}`, "socks://" + base64.RawURLEncoding.EncodeToString([]byte("u:p:1")) + "@fra1.example:443#fra1-mixed"},
		"http over TLS":        {"http", `{"streamSettings":{"security":"tls"}}`, "https://u:p%3A1@fra1.example:443#fra1-http"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Link(mustReach(t, c.protocol, c.config))
			if err != nil || got != c.want {
				t.Errorf("got  %s, %v\nwant %s", got, err, c.want)
			}
		})
	}
}

// The JSON of a VMess link has what v2rayN reads.
func TestVMessLink(t *testing.T) {
	e := mustReach(t, "vmess", `{"streamSettings":{"network":"grpc","security":"tls","tlsSettings":{"serverName":"a.example","alpn":["h2"]},"grpcSettings":{"serviceName":"s","multiMode":true}}}`)
	e.Name, e.Host = "☃ 1", "2001:db8::1"
	link, err := Link(e)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(link, "vmess://"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"v": "2", "ps": "☃ 1", "add": "2001:db8::1", "port": 443.0, "id": "u", "aid": "0", "scy": "auto", "net": "grpc", "type": "multi",
		"host": "", "path": "s", "authority": "", "tls": "tls", "sni": "a.example", "alpn": "h2", "fp": "",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// An IPv6 address has brackets, and the name may have any character.
func TestNamesAndAddresses(t *testing.T) {
	e := mustReach(t, "vless", `{}`)
	e.Name, e.Host = "Köln #1 + ☃", "2001:db8::1"
	link, err := Link(e)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil || u.Host != "[2001:db8::1]:443" || u.Fragment != e.Name || strings.ContainsAny(link, "+ ") {
		t.Errorf("%s: %v, host %q, name %q", link, err, u.Host, u.Fragment)
	}
}

// Where no link can say what the inbound needs, the reason says why.
func TestUnavailable(t *testing.T) {
	for name, c := range map[string]struct{ protocol, config, want string }{
		"an unknown protocol":        {"dokodemo-door", `{}`, "makes no clients of dokodemo-door"},
		"WireGuard without a key":    {"wireguard", `{"settings":{"secretKey":"` + wireGuardServer + `"}}`, "no key of WireGuard"},
		"an unknown transport":       {"vless", `{"streamSettings":{"network":"quic"}}`, `transport "quic"`},
		"Shadowsocks over WebSocket": {"shadowsocks", `{"streamSettings":{"network":"ws"}}`, "says no transport"},
		"SOCKS over TLS":             {"socks", `{"streamSettings":{"security":"tls"}}`, "over TLS"},
		"a short decryption":         {"vless", `{"settings":{"decryption":"mlkem768x25519plus.native"}}`, "has 2 words"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := reach(t, c.protocol, c.config)
			if err == nil {
				_, err = Link(e)
			}
			if _, is := errors.AsType[*Unavailable](err); !is || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an *Unavailable with %q", err, c.want)
			}
		})
	}
}

// A feature that mihomo or sing-box lacks is refused, since a configuration with it would not start.
func TestFormsRefuse(t *testing.T) {
	forms := map[string]func(Endpoint) (map[string]any, error){"mihomo": MihomoProxy, "sing-box": SingBoxOutbound}
	for name, c := range map[string]struct{ stream, without string }{
		"XHTTP":    {`{"network":"xhttp"}`, "mihomo sing-box"},
		"mKCP":     {`{"network":"kcp"}`, "mihomo sing-box"},
		"masks":    {`{"finalmask":{"tcp":[{"type":"fragment"}]}}`, "mihomo sing-box"},
		"multi":    {`{"network":"grpc","grpcSettings":{"multiMode":true}}`, "mihomo sing-box"},
		"a header": {`{"tcpSettings":{"header":{"type":"http"}}}`, "sing-box"},
		"plain":    {`{}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var without []string
			for _, form := range slices.Sorted(maps.Keys(forms)) {
				if _, err := forms[form](mustReach(t, "vless", `{"streamSettings":`+c.stream+`}`)); err != nil {
					without = append(without, form)
				}
			}
			if got := strings.Join(without, " "); got != c.without {
				t.Errorf("refused by %q, want %q", got, c.without)
			}
		})
	}
}

// Whatever an inbound has, reading it and writing its forms ends without a panic, and a link can be
// read as a URL.
func FuzzRead(f *testing.F) {
	f.Add("vless", `{"settings":{"decryption":"none"},"streamSettings":{"network":"ws","wsSettings":{"headers":{"Host":"a"}}}}`)
	f.Add("shadowsocks", `{"settings":{"method":"2022-blake3-aes-128-gcm","password":"AA=="}}`)
	f.Add("hysteria", `{"streamSettings":{"network":"hysteria","finalmask":{"udp":[{"type":"salamander","settings":{"password":"p"}}]}}}`)
	f.Fuzz(func(t *testing.T, protocol, config string) {
		e, err := Read(Inbound{Protocol: protocol, Config: json.RawMessage(config)})
		if err != nil {
			return
		}
		e.Name, e.Host, e.Port = "n", "h.example", 1
		_, _ = XrayOutbound(e)
		_, _ = MihomoProxy(e)
		_, _ = SingBoxOutbound(e)
		if link, err := Link(e); err == nil {
			if _, err := url.Parse(link); err != nil {
				t.Errorf("%q: %v", link, err)
			}
		}
	})
}
