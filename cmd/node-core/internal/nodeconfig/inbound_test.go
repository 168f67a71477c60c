package nodeconfig

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

// add is what protocolAdd does with an inbound.
func addInbound(w Wish, native string) (corestore.Protocol, error) {
	p := corestore.Protocol{ID: 7, Tag: "in-7", Protocol: w.Protocol, Listen: w.Listen, Port: w.Port}
	var err error
	if native != "" {
		err = FromNative(json.RawMessage(native), w, &p)
	} else {
		err = FromWish(w, &p)
	}
	if err == nil {
		err = Check(corestore.Node{Name: "fra1"}, p)
	}
	return p, err
}

// A wish that could not become what it says is refused with the reason.
func TestInboundRefusals(t *testing.T) {
	vless := Wish{Protocol: "vless", Listen: "0.0.0.0", Port: 443}
	with := func(w Wish, change func(*Wish)) Wish { change(&w); return w }
	for name, c := range map[string]struct {
		wish   Wish
		native string
		says   string
	}{
		"a certificate without TLS":     {with(vless, func(w *Wish) { w.CertFile, w.KeyFile = "c", "k" }), "", "security none"},
		"a name without TLS":            {with(vless, func(w *Wish) { w.SNI = "a.example" }), "", "--sni"},
		"MTProto's flags for VLESS":     {with(vless, func(w *Wish) { w.Secure = true }), "", "--secure"},
		"VLESS's flags for MTProto":     {Wish{Protocol: mtproto, Listen: "0.0.0.0", Port: 443, Secure: true, Security: "tls"}, "", "--security"},
		"security for a native inbound": {Wish{Security: "reality"}, `{"protocol":"vless","port":443}`, "--security"},
		"a flow without TLS":            {with(vless, func(w *Wish) { w.Flow = vision }), "", "needs security tls or reality"},
		"a flow of no name":             {with(vless, func(w *Wish) { w.Flow = "xtls-rprx-direct" }), "", "xtls-rprx-direct"},
		"settings of no kind":           {Wish{}, `{"protocol":"vless","port":443,"settings":"x"}`, "settings"},
		"a REALITY key that is none": {Wish{}, `{"protocol":"vless","port":443,"streamSettings":{"security":"reality",
			"realitySettings":{"privateKey":"short"}}}`, "privateKey"},
		"an MTProto member of no name": {Wish{Protocol: mtproto}, `{"port":443,"modes":{"tls":true},"tlsDomain":"a.example"}`, "tlsDomain"},
		"a TLS domain that is a URL":   {Wish{Protocol: mtproto, Listen: "0.0.0.0", Port: 443, TLSDomains: []string{"http://a.example/"}}, "", "http://a.example/"},
		"two protocols":                {Wish{Protocol: "vless"}, `{"protocol":"vmess","port":443}`, "vmess"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := addInbound(c.wish, c.native); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}

// Null settings, other case and the flow that means none are taken as Xray takes them.
func TestInboundLeniency(t *testing.T) {
	p, err := addInbound(Wish{Flow: "none"}, `{"protocol":"VLESS","port":"443","settings":null}`)
	if err != nil {
		t.Fatal(err)
	}
	if p.Protocol != "vless" || p.Port != 443 || p.Link.Flow != "" {
		t.Errorf("got %+v", p)
	}
	sub := corestore.Subscription{ID: 1, UserID: 1, UUID: "u", Enabled: true}
	config, err := Build(corestore.Node{}, []corestore.Protocol{p}, nil, []corestore.Subscription{sub})
	if err != nil || !strings.Contains(string(config.Services.Xray), `"clients":[{"email":"u","id":"u"}]`) || !strings.Contains(string(config.Services.Xray), `"protocol":"vless"`) {
		t.Errorf("services.xray is %s, %v", config.Services.Xray, err)
	}
}

// Links say what a stock client needs, whichever of Xray's names the inbound uses.
func TestNativeLinks(t *testing.T) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		stream string
		want   url.Values
	}{
		"WebSocket by its long name": {
			`{"network":"websocket","security":"tls","tlsSettings":{"serverName":"a.example","alpn":["http/1.1"]},"wsSettings":{"path":"/w","host":"h"}}`,
			url.Values{"type": {"ws"}, "path": {"/w"}, "host": {"h"}, "security": {"tls"}, "sni": {"a.example"}, "alpn": {"http/1.1"}},
		},
		"XHTTP by its old name": {
			`{"network":"splithttp","splithttpSettings":{"path":"/x","mode":"packet-up"}}`,
			url.Values{"type": {"xhttp"}, "path": {"/x"}, "mode": {"packet-up"}, "security": {"none"}},
		},
		"gRPC": {
			`{"network":"grpc","grpcSettings":{"serviceName":"s","authority":"a","multiMode":true}}`,
			url.Values{"type": {"grpc"}, "serviceName": {"s"}, "authority": {"a"}, "mode": {"multi"}, "security": {"none"}},
		},
		"REALITY": {
			fmt.Sprintf(`{"network":"raw","security":"reality","realitySettings":{"privateKey":%q,"serverNames":["b.example"],"shortIds":["ab"]}}`, base64.RawURLEncoding.EncodeToString(key.Bytes())),
			url.Values{"type": {"tcp"}, "security": {"reality"}, "sni": {"b.example"}, "sid": {"ab"}, "fp": {"chrome"}, "pbk": {base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes())}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := addInbound(Wish{}, `{"protocol":"vless","port":443,"settings":{"decryption":"none"},"streamSettings":`+c.stream+`}`)
			if err != nil {
				t.Fatal(err)
			}
			links, err := Links(corestore.Node{Name: "fra1", IP: "203.0.113.9"}, p, corestore.Subscription{UUID: "u"})
			if err != nil || len(links) != 1 {
				t.Fatalf("links %v, %v", links, err)
			}
			link, err := url.Parse(links[0])
			if err != nil {
				t.Fatal(err)
			}
			c.want.Set("encryption", "none")
			if link.Query().Encode() != c.want.Encode() {
				t.Errorf("got  %s\nwant %s", link.Query().Encode(), c.want.Encode())
			}
		})
	}
}

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
