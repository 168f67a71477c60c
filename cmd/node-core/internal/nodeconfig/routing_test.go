package nodeconfig

import (
	"encoding/json"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// service builds the configuration of a node with one VLESS inbound, an outbound and a profile,
// and returns its services.xray.
func service(t *testing.T, agent, outbound string, routing *corestore.Routing) string {
	t.Helper()
	p, err := addInbound(InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443, Security: "none"}, "")
	if err != nil {
		t.Fatal(err)
	}
	p.Enabled = true
	config, err := Build(corestore.NodeRows{
		Node: corestore.Node{Agent: agent, NodeTerms: coreapi.NodeTerms{Enabled: true}}, Protocols: []corestore.Protocol{p}, Routing: routing,
		Outbounds: []corestore.Outbound{{Tag: "direct", Config: json.RawMessage(outbound)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(config.Services.Xray)
}

// A profile blocks what it says, an operator's own words for it go before, and a node without a
// profile gets what it got before there were profiles.
func TestRoutingProfiles(t *testing.T) {
	const plain = `{"protocol":"freedom","settings":{},"tag":"direct"}`
	for name, c := range map[string]struct {
		agent, outbound string
		routing         *corestore.Routing
		has, lacks      []string
	}{
		"none":                    {"", plain, nil, []string{plain, `"routing":{}`}, []string{"finalRules", "sniffing", "blackhole", `"dns"`}},
		"private":                 {"", plain, &corestore.Routing{BlockPrivate: true}, []string{`"finalRules":[{"action":"block","ip":[`, `"127.0.0.0/8"`, `"169.254.0.0/16"`, `"fe80::/10"`, `"routing":{}`}, []string{"blackhole", "sniffing"}},
		"private of today":        {"node-agent/1 xray/26.7.28", plain, &corestore.Routing{BlockPrivate: true}, []string{"finalRules"}, nil},
		"private of before":       {"node-agent/1 xray/26.3.27", plain, &corestore.Routing{BlockPrivate: true}, []string{plain}, []string{"finalRules"}},
		"rules of an operator":    {"", `{"protocol":"freedom","settings":{"finalRules":[{"action":"allow"}]},"tag":"direct"}`, &corestore.Routing{BlockPrivate: true}, []string{`"finalRules":[{"action":"allow"}]`}, []string{"127.0.0.0/8"}},
		"an outbound of its kind": {"", `{"protocol":"socks","settings":{},"tag":"direct"}`, &corestore.Routing{BlockPrivate: true}, nil, []string{"finalRules"}},
		"no settings":             {"", `{"protocol":"Freedom","tag":"direct"}`, &corestore.Routing{BlockPrivate: true}, []string{"finalRules"}, nil},
		"torrents": {
			"", plain, &corestore.Routing{BlockTorrents: true},
			[]string{`{"protocol":["bittorrent"],"outboundTag":"blocked"}`, `{"tag":"blocked","protocol":"blackhole"}`, `"routeOnly":true`},
			[]string{"finalRules"},
		},
		"lists and rules": {
			"", plain,
			&corestore.Routing{BlockDomains: []string{"geosite:ads"}, BlockIPs: []string{"geoip:cn"}, Rules: json.RawMessage(`[{"port":"25","outboundTag":"blocked"}]`), DomainStrategy: "IPIfNonMatch", DNS: json.RawMessage(`{"servers":["1.1.1.1"]}`), Policy: json.RawMessage(`{"levels":{}}`)},
			[]string{
				`"rules":[{"domain":["geosite:ads"],"outboundTag":"blocked"},{"ip":["geoip:cn"],"outboundTag":"blocked"},{"port":"25","outboundTag":"blocked"}]`,
				`"domainStrategy":"IPIfNonMatch"`, `"dns":{"servers":["1.1.1.1"]}`, `"policy":{"levels":{}}`, "blackhole",
			},
			[]string{"finalRules", "sniffing"},
		},
	} {
		got := service(t, c.agent, c.outbound, c.routing)
		for _, text := range c.has {
			if !strings.Contains(got, text) {
				t.Errorf("%s: %s lacks %s", name, got, text)
			}
		}
		for _, text := range c.lacks {
			if strings.Contains(got, text) {
				t.Errorf("%s: %s has %s", name, got, text)
			}
		}
	}
	if err := CheckRouting(corestore.Routing{Rules: json.RawMessage(`{}`)}); err == nil {
		t.Error("rules that are no list were taken")
	}
}

// An outbound that is disabled, or of which only the traffic is left, is not in the configuration.
func TestOutboundsLeftOut(t *testing.T) {
	config, err := Build(corestore.NodeRows{Node: corestore.Node{NodeTerms: coreapi.NodeTerms{Enabled: true}}, Outbounds: []corestore.Outbound{
		{Tag: "direct", Config: json.RawMessage(`{"tag":"direct"}`)}, {Tag: "off", Config: json.RawMessage(`{"tag":"off"}`), Disabled: true}, {Tag: "gone"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(config.Services.Xray); !strings.Contains(got, `"outbounds":[{"tag":"direct"}]`) {
		t.Errorf("got %s", got)
	}
}

// Each limit of a subscription reaches its clients, and none is there where it has none.
func TestLimitsReachClients(t *testing.T) {
	sub := Sample
	sub.LimitIPs, sub.LimitConnections, sub.RateUpBitsPerSecond, sub.RateDownBitsPerSecond = 2, 3, 4, 5
	for name, native := range map[string]string{
		"vless": `{"protocol":"vless","port":443,"settings":{"decryption":"none"}}`, "trojan": `{"protocol":"trojan","port":443,"settings":{}}`,
		"socks": `{"protocol":"socks","port":443,"settings":{}}`, "mtproto": `{"port":443,"modes":{"secure":true}}`,
	} {
		flags := InboundFlags{}
		if name == mtproto {
			flags.Protocol = mtproto
		}
		p, err := addInbound(flags, native)
		if err != nil {
			t.Fatal(err)
		}
		p.Enabled = true
		for _, limited := range []bool{true, false} {
			of := Sample
			if limited {
				of = sub
			}
			config, err := Build(corestore.NodeRows{
				Node: corestore.Node{NodeTerms: coreapi.NodeTerms{Enabled: true}}, Protocols: []corestore.Protocol{p},
				Subscriptions: []corestore.Subscription{of}, Reach: corestore.Everywhere(of.GroupID),
			})
			if err != nil {
				t.Fatal(err)
			}
			const want = `"limitIps":2,"limitConnections":3,"rateUpBitsPerSecond":4,"rateDownBitsPerSecond":5`
			got := string(config.Services.Xray) + string(config.Services.MTProto)
			if strings.Contains(got, want) != limited || strings.Contains(got, "limitIps") != limited {
				t.Errorf("%s, limited: %t: %s", name, limited, got)
			}
		}
	}
}
