package nodeconfig

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/url"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

// A link has what a standard client needs, whichever of Xray's names for a transport the inbound
// uses.
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
		"TLS in capitals": {
			`{"security":"TLS","tlsSettings":{"serverName":"a.example"}}`,
			url.Values{"type": {"tcp"}, "security": {"tls"}, "sni": {"a.example"}},
		},
		"REALITY": {
			fmt.Sprintf(`{"network":"raw","security":"reality","realitySettings":{"privateKey":%q,"serverNames":["b.example"],"shortIds":["ab"]}}`, base64.RawURLEncoding.EncodeToString(key.Bytes())),
			url.Values{"type": {"tcp"}, "security": {"reality"}, "sni": {"b.example"}, "sid": {"ab"}, "fp": {"chrome"}, "pbk": {base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes())}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := addInbound(InboundFlags{}, `{"protocol":"vless","port":443,"settings":{"decryption":"none"},"streamSettings":`+c.stream+`}`)
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
