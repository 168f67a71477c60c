package members

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"nodeagent/xray/state"
)

// A member that Xray has not is named, with the nearest one that it has.
func TestUnknownMembers(t *testing.T) {
	stream := func(settings string) *state.Operation {
		return &state.Operation{Outbound: &state.Outbound{Tag: "o", Config: json.RawMessage(`{"protocol":"freedom","streamSettings":{` + settings + `}}`)}}
	}
	outbound := func(protocol, settings string) *state.Operation {
		return &state.Operation{Outbound: &state.Outbound{Tag: "o", Config: json.RawMessage(fmt.Sprintf(`{"tag":"o","protocol":%q,"settings":{%s}}`, protocol, settings))}}
	}
	user := func(protocol, member string) *state.Operation {
		return &state.Operation{Outbound: &state.Outbound{Tag: "o", Config: json.RawMessage(fmt.Sprintf(
			`{"protocol":%q,"settings":{"servers":[{"address":"a","port":1,"users":[{"user":"u",%q:"p"}]}]}}`, protocol, member))}}
	}
	inbound := func(protocol, members string) *state.Operation {
		return &state.Operation{Inbound: &state.Inbound{Tag: "in-1", Protocol: protocol, Config: json.RawMessage(fmt.Sprintf(`{"tag":"in-1","port":1,"protocol":%q,%s}`, protocol, members))}}
	}
	routing := func(members string) *state.Operation {
		return &state.Operation{Routing: json.RawMessage(`{` + members + `}`)}
	}
	policy := func(raw string) *state.Operation { return &state.Operation{Policy: json.RawMessage(raw)} }
	dns := func(raw string) *state.Operation { return &state.Operation{DNS: json.RawMessage(raw)} }
	strategy := func(kind, settings string) *state.Operation {
		return &state.Operation{Routing: json.RawMessage(fmt.Sprintf(`{"balancers":[{"tag":"b","selector":["o"],"strategy":{"type":%q,"settings":{%s}}}]}`, kind, settings))}
	}
	for _, c := range []struct {
		op   *state.Operation
		says string
	}{
		{inbound("vless", `"allocate":{"strategy":"always"},"settings":{"decryption":"none","encryption":"none"}`), ""},
		{inbound("trojan", `"settings":{"decryption":"none"}`), ""},
		{inbound("trojan", `"settings":{"encryption":"none"}`), `has no member "encryption"`},
		{inbound("vless", `"alocate":{}`), `did you mean "allocate"?`},
		{routing(`"domainMatcher":"hybrid","rules":[{"domainMatcher":"mph","type":"field","port":"1","outboundTag":"o"}]`), ""},
		{routing(`"rules":[{"ports":"1","outboundTag":"o"}]`), `did you mean "port"?`},
		{policy(`{"levels":{"0":{"handshake":4,"connIdle":300,"bufferSize":4}},"system":{"statsInboundUplink":true}}`), ""},
		{policy(`{"level":{}}`), `policy: Xray has no member "level"; did you mean "levels"?`},
		{policy(`{"levels":{"0":{"conIdle":300}}}`), `policy.levels.0: Xray has no member "conIdle"; did you mean "connIdle"?`},
		{dns(`{"hosts":{"a.example":"1.1.1.1"},"servers":["1.1.1.1",{"address":"8.8.8.8","domains":["a"],"expectedIPs":"a,b"}],"queryStrategy":"UseIP"}`), ""},
		{dns(`{"server":[]}`), `dns: Xray has no member "server"; did you mean "servers"?`},
		{dns(`{"servers":["1.1.1.1",{"addrss":"8.8.8.8"}]}`), `dns.servers[1]: Xray has no member "addrss"; did you mean "address"?`},
		{strategy("leastLoad", `"costs":[{"regexp":true,"match":"a","value":1}],"baselines":["1s"],"expected":1,"maxRTT":"1s","tolerance":0.1`), ""},
		{strategy("leastLoad", `"cost":[]`), `did you mean "costs"?`},
		{strategy("leastload", `"costs":[{"regex":true}]`), `did you mean "regexp"?`},
		{strategy("random", ``), ""},
		{strategy("random", `"costs":[]`), `strategy.settings: Xray has no member "costs"`},
		{stream(`"tcpSettings":{"header":{"type":"http","request":{"path":["/"],"headers":{"Host":["a"]}},"response":{"status":"200"}}}`), ""},
		{stream(`"tcpSettings":{"header":{"typ":"http"}}`), `did you mean "type"?`},
		{stream(`"rawSettings":{"header":{"type":"http","request":{"paths":["/"]}}}`), `rawSettings.header.request: Xray has no member "paths"; did you mean "path"?`},
		{stream(`"rawSettings":{"header":{"type":"http","response":{"state":"200"}}}`), `rawSettings.header.response`},
		{stream(`"finalmask":{"tcp":[{"type":"fragment","settings":{"packets":"tlshello","length":"1-2"}}],"udp":[{"type":"mkcp-legacy","settings":{"header":"dtls"}},{"type":"salamander","settings":{"password":"p"}}]}`), ""},
		{stream(`"finalmask":{"tcp":[{"type":"fragment","settings":{"packet":"tlshello"}}]}`), `did you mean "packets"?`},
		{stream(`"finalmask":{"udp":[{"type":"Salamander","settings":{"pasword":"p"}}]}`), `finalmask.udp[0].settings: Xray has no member "pasword"`},
		{stream(`"finalmask":{"udp":[{"type":"mkcp-legacy","settings":{"x":1}}]}`), `has no member "x"`},
		{inbound("vless", `"trustedProxy":[]`), `did you mean "trustedProxies"?`},
		{inbound("vles", `"settings":{}`), `protocol "vles" is unknown to Xray; it knows dokodemo-door, http, hysteria, mixed, shadowsocks, socks, trojan, tun, tunnel, vless, vmess, wireguard`},
		{inbound("vless", `"settings":{"users":[{"id":"a","email":"b"}]},"sniffing":{"ipsExcluded":["10.0.0.0/8"]}`), ""},
		{inbound("wireguard", `"settings":{"workers":2,"peers":[{"email":"a","level":1}]}`), ""},
		{inbound("wireguard", `"settings":{"peers":[{"mail":"a"}]}`), `settings.peers[0]: Xray has no member "mail"; did you mean "email"?`},
		{inbound("tunnel", `"settings":{"allowedNetwork":"tcp","rewriteAddress":"a","rewritePort":1}`), ""},
		{stream(`"kcpSettings":{"congestion":true,"readBufferSize":2,"writeBufferSize":2,"cwndMultiplier":1,"maxSendingWindow":2097152}`), ""},
		{stream(`"kcpSettings":{"maxSendingWindows":1}`), `did you mean "maxSendingWindow"?`},
		{stream(`"tlsSettings":{"echForceQuery":"full"}`), ""},
		{stream(`"tlsSettings":{"verifyPeerCertInNames":["a"]}`), `"verifyPeerCertInNames" has been removed and migrated to "verifyPeerCertByName"`},
		{stream(`"xhttpSettings":{"sessionIDTable":"ALPHABET","sessionIDLength":"8-16","sessionIDPlacement":"header","sessionIDKey":"X"}`), ""},
		{stream(`"xhttpSettings":{"sessionPlacement":"header"}`), `"sessionPlacement" has been removed and migrated to "sessionIDPlacement"`},
		{stream(`"finalmask":{"tcp":[{"type":"xmc","settings":{"hostname":"a","password":"b"}}]}`), ""},
		{stream(`"finalmask":{"tcp":[{"type":"xmc","settings":{"hostnames":"a"}}]}`), `did you mean "hostname"?`},
		{stream(`"finalmask":{"tcp":[{"type":"fragment","settings":{"packets":"tlshello","lengths":["1-2"],"delays":["1-2"]}}]}`), ""},
		{stream(`"finalmask":{"udp":[{"type":"realm","settings":{"url":"a","stunServers":["b"]}},{"type":"salamander","settings":{"password":"p","packetSize":"1-2"}},{"type":"xdns","settings":{"resolvers":["a"]}}]}`), ""},
		{stream(`"finalmask":{"udp":[{"type":"realm","settings":{"stunServer":["b"]}}]}`), `did you mean "stunServers"?`},
		{stream(`"finalmask":{"quicParams":{"bbrProfile":"standard"}}`), ""},
		{stream(`"finalmask":{"quicParams":{"bbrProfiles":"standard"}}`), `did you mean "bbrProfile"?`},
		{outbound("freedom", `"finalRules":[{"action":"block","network":"tcp","port":"25","ip":["geoip:cn"],"blockDelay":"1-2"}]`), ""},
		{outbound("freedom", `"finalRules":[{"action":"block","ports":"25"}]`), `settings.finalRules[0]: Xray has no member "ports"; did you mean "port"?`},
		{outbound("dns", `"rules":[{"action":"drop","qType":"65","domain":["a"],"rCode":0}],"rewriteAddress":"a"`), ""},
		{outbound("loopback", `"inboundTag":"a","sniffing":{"enabled":true}`), ""},
		{outbound("loopback", `"sniffing":{"enable":true}`), `settings.sniffing: Xray has no member "enable"; did you mean "enabled"?`},
		{stream(`"sockopt":{"happyEyeballs":{"tryDelayMs":250,"maxConcurrentTry":4}}`), ""},
		{stream(`"sockopt":{"happyEyeballs":{"tryDelay":250}}`), `did you mean "tryDelayMs"?`},
		{user("socks", "pass"), ""},
		{user("socks", "passw"), `users[0]: Xray has no member "passw"; did you mean "pass"?`},
		{user("http", "pass"), ""},
		{user("http", "passw"), `did you mean "pass"?`},
	} {
		err := Operation(c.op)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got %v, want an error with %q", text(c.op), err, c.says)
		}
	}
	for raw, says := range map[string]string{
		`{"observatory":{"subjectSelector":["a"],"probeUrl":"http://a","probeInterval":"1m"},"burstObservatory":{"pingConfig":{"interval":"1m","sampling":2}}}`: "",
		`{"observatory":{"probeInterval":"1m","subjectSelectors":["a"]}}`:                                                                                       `did you mean "subjectSelector"?`,
		`{"burstObservatory":{"pingconf":{}}}`:                `did you mean "pingConfig"?`,
		`{"burstObservatory":{"pingConfig":{"samplings":2}}}`: `burstObservatory.pingConfig: Xray has no member "samplings"; did you mean "sampling"?`,
	} {
		var base state.Base
		if err := json.Unmarshal([]byte(raw), &base); err != nil {
			t.Fatal(err)
		}
		if err := Base(base); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: got %v, want an error with %q", raw, err, says)
		}
	}
}

func text(op *state.Operation) string {
	raw, _ := json.Marshal(op)
	return string(raw)
}
