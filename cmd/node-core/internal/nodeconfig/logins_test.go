package nodeconfig

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

// ownLogins are a subscription's own credentials, and what a node's client and a link have of them.
var ownLogins = map[string]struct {
	inbound    string
	credential corestore.Credential
	client     string // as the node gets it
	link       string // a part of the link
}{
	"another UUID": {
		`{"protocol":"vless","port":443,"settings":{"decryption":"none"}}`,
		corestore.Credential{Protocol: "vless", ID: "own-id"},
		`{"email":"u","id":"own-id"}`, "vless://own-id@",
	},
	"a flow": {
		`{"protocol":"vless","port":443,"settings":{"decryption":"none"},"streamSettings":{"network":"tcp","security":"tls"}}`,
		corestore.Credential{Protocol: "vless", Flow: "xtls-rprx-vision"},
		`{"email":"u","flow":"xtls-rprx-vision","id":"u"}`, "flow=xtls-rprx-vision",
	},
	"a flow that the inbound can't have": {
		`{"protocol":"vless","port":443,"settings":{"decryption":"none"},"streamSettings":{"network":"ws","security":"tls"}}`,
		corestore.Credential{Protocol: "vless", Flow: "xtls-rprx-vision"},
		`{"email":"u","id":"u"}`, "vless://u@",
	},
	"of this inbound before of the protocol": {
		`{"protocol":"vmess","port":443}`,
		corestore.Credential{Protocol: "vmess", ProtocolID: 7, ID: "own-id"},
		`{"email":"u","id":"own-id"}`, "vmess://",
	},
	"of another inbound": {
		`{"protocol":"vmess","port":443}`,
		corestore.Credential{Protocol: "vmess", ProtocolID: 8, ID: "own-id"},
		`{"email":"u","id":"u"}`, "vmess://",
	},
	"a Trojan password": {
		`{"protocol":"trojan","port":443,"streamSettings":{"security":"tls"}}`,
		corestore.Credential{Protocol: "trojan", Password: "a b"},
		`{"email":"u","password":"a b"}`, "trojan://a%20b@",
	},
	"a Shadowsocks key": {
		`{"protocol":"shadowsocks","port":443,"settings":{"method":"2022-blake3-aes-128-gcm","password":"c2VydmVy"}}`,
		corestore.Credential{Protocol: "shadowsocks", Password: "a2V5", Method: "aes-128-gcm"},
		`{"email":"u","password":"a2V5"}`, "ss://2022-blake3-aes-128-gcm:c2VydmVy%3Aa2V5@",
	},
	"a Shadowsocks method": {
		`{"protocol":"shadowsocks","port":443,"settings":{"method":"chacha20-ietf-poly1305"}}`,
		corestore.Credential{Protocol: "shadowsocks", Password: "p", Method: "aes-128-gcm"},
		`{"email":"u","method":"aes-128-gcm","password":"p"}`, "ss://YWVzLTEyOC1nY206cA@",
	},
	"a Hysteria password": {
		`{"protocol":"hysteria","port":443,"streamSettings":{"network":"hysteria","security":"tls"}}`,
		corestore.Credential{Protocol: "hysteria", Password: "p"},
		`{"auth":"p","email":"u"}`, "hysteria2://p@",
	},
	"an account": {
		`{"protocol":"http","port":443}`,
		corestore.Credential{Protocol: "http", ID: "me", Password: "p"},
		`{"email":"u","pass":"p","user":"me"}`, "http://me:p@",
	},
	"a peer": {
		`{"protocol":"wireguard","port":443,"settings":{"secretKey":"a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="}}`,
		corestore.Credential{Protocol: "wireguard", PublicKey: "pub", AllowedIPs: []string{"10.0.0.2/32"}, KeepAlive: 25},
		`{"allowedIPs":["10.0.0.2/32"],"email":"u","keepAlive":25,"publicKey":"pub"}`, "",
	},
}

// A client of a node and a link have the subscription's own credentials, the same on both sides.
// Another subscription on the same inbound has what is derived from its UUID.
func TestOwnCredentials(t *testing.T) {
	for name, c := range ownLogins {
		t.Run(name, func(t *testing.T) {
			p, err := addInbound(InboundFlags{}, c.inbound)
			if err != nil {
				t.Fatal(err)
			}
			p.ID = 7
			of := corestore.Credential{Protocol: c.credential.Protocol, ID: "of-all", Password: "of-all"}
			own := corestore.Subscription{ID: 1, UUID: "u", Enabled: true, Credentials: []corestore.Credential{c.credential}}
			if c.credential.ProtocolID == p.ID {
				own.Credentials = append(own.Credentials, of)
			}
			other := corestore.Subscription{ID: 2, UUID: "other", Enabled: true}
			settings := map[string]json.RawMessage{}
			object := struct{ Settings *map[string]json.RawMessage }{&settings}
			if err := json.Unmarshal(p.Config, &object); err != nil {
				t.Fatal(err)
			}
			if err := setClients(p, settings, []corestore.Subscription{own, other}); err != nil {
				t.Fatal(err)
			}
			clients := clientsIn(t, settings)
			if clients[0] != c.client {
				t.Errorf("the node's client is %s, want %s", clients[0], c.client)
			}
			if len(clients) > 1 && strings.Contains(clients[1], "own") || p.Protocol == "wireguard" && len(clients) != 1 {
				t.Errorf("the clients are %s", clients)
			}
			links, err := Links(corestore.Node{Name: "fra1", IP: "203.0.113.9"}, p, own)
			if c.link == "" {
				return
			}
			if err != nil || len(links) != 1 || !strings.Contains(links[0], c.link) {
				t.Errorf("links %s, %v: want %q in one", links, err, c.link)
			}
		})
	}
}

// clientsIn returns the clients, accounts or peers of an inbound's settings.
func clientsIn(t *testing.T, settings map[string]json.RawMessage) (all []string) {
	t.Helper()
	for _, name := range []string{"clients", "accounts", "peers"} {
		var list []map[string]any
		if raw, there := settings[name]; there {
			if err := json.Unmarshal(raw, &list); err != nil {
				t.Fatal(err)
			}
		}
		for _, client := range list {
			raw, err := json.Marshal(client) // with its members in order
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(raw))
		}
	}
	if len(all) == 0 {
		t.Fatalf("no clients in %v", slices.Sorted(maps.Keys(settings)))
	}
	return all
}

// A rotation leaves nothing of the credentials but a peer's address.
func TestRotationEndsOwnCredentials(t *testing.T) {
	sub := corestore.Subscription{Credentials: []corestore.Credential{
		{Protocol: "trojan", Password: "p"},
		{Protocol: "wireguard", PrivateKey: "a", PublicKey: "b", PreSharedKey: "c", AllowedIPs: []string{"10.0.0.2/32"}},
	}}
	sub.Rotate()
	if len(sub.Credentials) != 1 || sub.Credentials[0].AllowedIPs[0] != "10.0.0.2/32" {
		t.Fatalf("left are %+v", sub.Credentials)
	}
	if c := sub.Credentials[0]; c.PrivateKey == "a" || c.PublicKey == "b" || c.PreSharedKey == "c" {
		t.Errorf("the peer keeps a key: %+v", c)
	}
}
