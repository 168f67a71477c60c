package e2e

import (
	"crypto/ecdh"
	"encoding/json"
	"strings"
	"testing"
)

// foreignDocument is a NodeConfig as panels write it. It has white space, unordered
// members, capitals, numbers as text or with a decimal point, escapes, members that Xray
// ignores, and clients that different members (or none) tie to the client map. The names
// between @ are filled in.
const foreignDocument = `{
  "services" : { "xray" : {
      "policy": { "levels" : { "0" : { "connIdle" : 300, "handshake":4, "bufferSize" : 512 } } },
	"routing":{"domainMatcher":"hybrid", "domainStrategy":"AsIs","balancers":[ {"strategy":{"type":"leastLoad","settings":{
	    "tolerance": 0.050, "expected":1, "costs":[{"value": 1.0, "match":"sp\u0061re","regexp":false}, {"match":"other","regexp":false,"value":2.50}]}},
	  "selector" :["sp\u0061re"],"tag":"spread"}],
	  "rules":[ {"type":"field","domain":["full:blocked.example","domain:ads.example"],"outboundTag":"blocked"},
	    {"outboundTag" : "t\u0075nnel", "type":"field","inboundTag":["wg-4"]},
	    {"type":"field","user":["carol@example.com","regexp:^nobody.*\\.example$"],"outboundTag":"d\u00e9tour <1>"},
	    {"balancerTag":"spread","type":"field","domain":["domain:balanced.example"]} ] },
    "dns" : {"servers":["127.0.0.1", {"port":53,"address":"127.0.0.1","domains":["full:inside.example"]}],"hosts":{"inside.example":"127.0.0.1"}},
    "burstObservatory":{"subjectSelector":["spare"],"pingConfig":{"timeout":"2s","sampling":2,"destination":"http:\/\/127.0.0.1:1\/","interval":"10h"}},
    "outbounds":[
	  { "settings":{}, "protocol":"freedom" , "tag":"direct" },
	  {"tag":"d\u00e9tour <1>","protocol":"freedom","settings":{"domainStrategy":"UseIPv4"}},
	  {"tag":"tunnel","protocol":"freedom","settings":{"redirect":"11.22.33.44:64001"}},
	  {"protocol":"blackhole","settings":{"response":{"type":"none"}},"tag":"blocked"},
	  {"tag":"spare","protocol":"freedom"} ],
    "inbounds" : [
      { "streamSettings" : {"wsSettings":{"path":"\/\u0077s","headers":{}},"network":"ws","security":"none"},
        "port" : 64010, "listen":"127.0.0.1", "protocol":"VLESS", "tag":"panel-vless-1",
        "sniffing":{"destOverride":["http","tls"],"enabled":true,"metadataOnly":false},
        "allocate":{"strategy":"always","refresh":5,"concurrency":3},
        "settings":{ "fallbacks":[], "clients":[
           {"flow":"","email":"\u0061lice@example.com","id":"aaaaaaaa-1111-4111-8111-111111111111","limitConnections":50},
           {"id":"BBBBBBBB-2222-4222-8222-222222222222","email":"Bob@Example.com"},
           {"email":"carol@example.com", "id":"cccccccc-3333-4333-8333-333333333333", "level": 0},
           {"id":"dddddddd-4444-4444-8444-444444444444","email":"stranger"} ], "decryption":"none" } },
      {"tag":"panel-trojan-2","port":"64011","listen":"127.0.0.1","protocol":"trojan","protocolName":"trojan","nodeProtocolId":72,
        "settings":{"clients":[{"password":"pass-\u00e9\u0026-alice"},{"email":"Bob@Example.com","password":"pass <bob>"}]},
        "streamSettings":{"network":"tcp","security":"tls","tlsSettings":{"certificates":[{"key":@KEY@,"certificate":@CERTIFICATE@}],"alpn":["http\/1.1"]}}},
      {"protocol":"shadowsocks","settings":{"method":"2022-blake3-aes-128-gcm","network":"tcp,udp","password":"AAAAAAAAAAAAAAAAAAAAAA==",
         "clients":[{"email":"\u0061lice@example.com","password":"AQEBAQEBAQEBAQEBAQEBAQ=="},{"email":"Bob@Example.com","password":"AgICAgICAgICAgICAgICAg=="}]},
       "listen":"127.0.0.1","tag":"panel-ss-3","port":64012},
      {"settings":{"secretKey":"@WIREGUARD@","mtu":1420,"peers":[
         {"allowedIPs":["10.9.0.2\/32"],"email":"alice@example.com","publicKey":"@PEER@"}]},
       "port":64013,"tag":"wg-4","protocol":"wireguard","listen":"127.0.0.1"},
      {"tag":"panel-socks-5","protocol":"socks","port":64014,"listen":"127.0.0.1","settings":{"auth":"password","udp":false,
         "accounts":[{"pass":"secret \u003c5\u003e","user":"alice@example.com"}]}},
      {"listen":"127.0.0.1","port":64015,"protocol":"vless","tag":"panel-réalité-6","settings":{"decryption":"none","clients":[
         {"flow":"xtls-rprx-vision","id":"aaaaaaaa-6666-4666-8666-666666666666","email":"Bob@Example.com"}]},
       "streamSettings":{"security":"reality","network":"TCP","realitySettings":{"xver":0,"show":false,"dest":"127.0.0.1:64002",
         "serverNames":["example.com"],"privateKey":"@REALITY@","shortIds":["","0a1b"]}}},
      {"tag":"panel-vmess-7","listen":"127.0.0.1","port":64016,"protocol":"vmess","settings":{"clients":[
         {"email":"dave@example.com","id":"eeeeeeee-7777-4777-8777-777777777777","limitConnections":1,"rateUpBitsPerSecond":800000000}]}}
	] } },
  "clientMap":{ "alice\u0040example.com":{"subscriptionId":11,"userId":1}, "Bob@Example.com" : {"userId":2,"subscriptionId":null},
     "pass-é&-alice":{"userId":1,"subscriptionId":12},"carol@example.com":{"userId":3,"subscriptionId":13},
     "dave@example.com":{"userId":4,"subscriptionId":14}, "gone@example.com":{"userId":5,"subscriptionId":15} },
  "revision": @REVISION@ }
`

// foreignKeys are the keys and certificates of foreignDocument.
type foreignKeys struct {
	overTLS, reality  streams
	wireGuard, client *ecdh.PrivateKey
}

func newForeignKeys(t *testing.T) foreignKeys {
	t.Helper()
	k := foreignKeys{wireGuard: newWireGuardKey(t), client: newWireGuardKey(t)}
	k.overTLS, k.reality = secureStreams(t)
	return k
}

// document returns foreignDocument with the keys filled in.
func (k foreignKeys) document(t *testing.T, revision string) []byte {
	t.Helper()
	text := func(v any) string {
		raw, err := json.Marshal(v)
		must(t, err)
		return string(raw)
	}
	certificate := k.overTLS.server["tlsSettings"].(map[string]any)["certificates"].([]any)[0].(map[string]any)
	return []byte(strings.NewReplacer(
		"@KEY@", text(certificate["key"]), "@CERTIFICATE@", text(certificate["certificate"]),
		"@WIREGUARD@", wireGuardText(k.wireGuard.Bytes()), "@PEER@", wireGuardText(k.client.PublicKey().Bytes()),
		"@REALITY@", k.reality.server["realitySettings"].(map[string]any)["privateKey"].(string),
		"@REVISION@", revision,
	).Replace(foreignDocument))
}

// ways returns one way for each user and inbound of the document that the test uses.
func (k foreignKeys) ways() []upgradeWay {
	target := upgradeTarget
	ws := transport("ws", map[string]any{"path": "/ws"})
	outbound := func(protocol string, settings, stream map[string]any) map[string]any {
		out := map[string]any{"protocol": protocol, "settings": settings}
		if stream != nil {
			out["streamSettings"] = stream
		}
		return out
	}
	vless := func(port int, uuid, flow string, stream map[string]any) map[string]any {
		return outbound("vless", vnext(port, map[string]any{"id": uuid, "encryption": "none", "flow": flow}), stream)
	}
	shadowsocks := func(password string) map[string]any {
		return outbound("shadowsocks", servers(64_012, map[string]any{"method": "2022-blake3-aes-128-gcm", "password": serverKey + ":" + password}), nil)
	}
	trojan := func(password string) map[string]any {
		return outbound("trojan", servers(64_011, map[string]any{"password": password}), k.overTLS.client)
	}
	alice, bob := upgradeAccount{User: 1, Subscription: 11}, upgradeAccount{User: 2}
	on := func(a upgradeAccount, protocol int64) upgradeAccount { a.Protocol = protocol; return a }
	return []upgradeWay{
		{Name: "alice by VLESS", Account: on(alice, 1), Outbound: "direct", Dial: target, ClientConfig: vless(64_010, "aaaaaaaa-1111-4111-8111-111111111111", "", ws)},
		{Name: "bob by VLESS", Account: on(bob, 1), Outbound: "direct", Dial: target, ClientConfig: vless(64_010, "bbbbbbbb-2222-4222-8222-222222222222", "", ws)},
		{Name: "carol by VLESS", Account: upgradeAccount{3, 13, 1}, Outbound: "détour <1>", Dial: target, ClientConfig: vless(64_010, "cccccccc-3333-4333-8333-333333333333", "", ws)},
		{Name: "alice by Trojan", Account: upgradeAccount{1, 12, 72}, Outbound: "direct", Dial: target, ClientConfig: trojan("pass-é&-alice")},
		{Name: "bob by Trojan", Account: on(bob, 72), Outbound: "direct", Dial: target, ClientConfig: trojan("pass <bob>")},
		{Name: "alice by Shadowsocks", Account: on(alice, 3), Outbound: "direct", Dial: target, ClientConfig: shadowsocks("AQEBAQEBAQEBAQEBAQEBAQ==")},
		{Name: "bob by Shadowsocks", Account: on(bob, 3), Outbound: "direct", Dial: target, ClientConfig: shadowsocks("AgICAgICAgICAgICAgICAg==")},
		{Name: "alice by WireGuard", Account: on(alice, 4), Outbound: "tunnel", Dial: somewhere, ClientConfig: wireGuardClient(k.client.Bytes(), "10.9.0.2", 64_013, k.wireGuard.PublicKey().Bytes())},
		{Name: "alice by SOCKS", Account: on(alice, 5), Outbound: "direct", Dial: target, ClientConfig: outbound("socks",
			servers(64_014, map[string]any{"users": []any{map[string]any{"user": "alice@example.com", "pass": "secret <5>"}}}), nil)},
		{Name: "bob by REALITY", Account: on(bob, 6), Outbound: "direct", Dial: target, ClientConfig: vless(64_015, "aaaaaaaa-6666-4666-8666-666666666666", "xtls-rprx-vision",
			with(k.reality.client, "realitySettings", with(k.reality.client["realitySettings"].(map[string]any), "shortId", "0a1b")))},
		{
			Name: "dave by VMess", Account: upgradeAccount{4, 14, 7}, Outbound: "direct", Dial: target, OneAtATime: true,
			ClientConfig: outbound("vmess", vnext(64_016, map[string]any{"id": "eeeeeeee-7777-4777-8777-777777777777", "security": "auto"}), nil),
		},
	}
}

// wireGuardClient returns the outbound of a stock client.
func wireGuardClient(key []byte, address string, port int, server []byte) map[string]any {
	return map[string]any{"protocol": "wireguard", "settings": map[string]any{
		"secretKey": wireGuardText(key), "address": []string{address + "/32"}, "mtu": 1420, "noKernelTun": true,
		"peers": []any{map[string]any{"endpoint": loopback(port), "publicKey": wireGuardText(server)}},
	}}
}
