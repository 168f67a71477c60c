package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

func lines(text string) string {
	raw, _ := json.Marshal(strings.Split(strings.TrimSpace(text), "\n"))
	return string(raw)
}

func TestCertificatesAreChecked(t *testing.T) {
	now := time.Now()
	good, key := xraytest.CertificatePair(t, now.Add(-time.Hour), now.Add(time.Hour))
	_, otherKey := xraytest.CertificatePair(t, now.Add(-time.Hour), now.Add(time.Hour))
	old, oldKey := xraytest.CertificatePair(t, now.Add(-2*time.Hour), now.Add(-time.Hour))
	next, nextKey := xraytest.CertificatePair(t, now.Add(time.Hour), now.Add(2*time.Hour))
	inline := func(certificate, key string) string {
		return fmt.Sprintf(`{"certificate":%s,"key":%s}`, lines(certificate), lines(key))
	}
	as := func(usage, members string) string {
		return fmt.Sprintf(`{"usage":%q,%s`, usage, strings.TrimSuffix(strings.TrimPrefix(members, "{"), "}")+"}")
	}
	for name, c := range map[string]struct{ certificates, says string }{
		"good":             {inline(good, key), ""},
		"one that issues":  {as("issue", inline(good, key)), ""},
		"issues garbage":   {as("Issue", `"certificate":["x"]`), "certificates[0]"},
		"issues no longer": {as("issue", inline(old, oldKey)), "expired on"},
		"issues without":   {as("issue", fmt.Sprintf(`"certificate":%s`, lines(good))), "certificates[0]"},
		"one that is used": {as("encipherment", inline(good, key)), ""},
		"one of no usage":  {as("serve", inline("garbage", key)), "certificates[0]"},
		"one to verify by": {as("verify", fmt.Sprintf(`"certificate":%s`, lines(good))) + "," + inline(good, key), ""},
		"verify by itself": {as("verify", inline(good, key)), "no certificate"},
		"verify garbage":   {inline(good, key) + "," + as("verify", `"certificate":["x"]`), "certificates[1]"},
		"none":             {``, "no certificate"},
		"garbage":          {inline("garbage", key), "certificates[0]"},
		"another's key":    {inline(good, otherKey), "does not match"},
		"expired":          {inline(old, oldKey), "expired on"},
		"not valid yet":    {inline(next, nextKey), "not valid before"},
		"a missing file":   {`{"certificateFile":"/nowhere/c.pem","keyFile":"/nowhere/k.pem"}`, "/nowhere/c.pem"},
		"the second wrong": {inline(good, key) + "," + inline("garbage", key), "certificates[1]"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := xraytest.Parse(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,
				"streamSettings":{"security":"TLS","tlsSettings":{"certificates":[%s]}}}]}`, c.certificates))
			if err != nil {
				t.Fatal(err)
			}
			err = Changed(state.State{}, s, now)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "in-1")) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("the error quotes a key: %v", err)
			}
			if err := Changed(s, s, now.Add(24*time.Hour)); err != nil {
				t.Errorf("a running configuration is refused: %v", err)
			}
		})
	}
}

func TestExpressionsAreChecked(t *testing.T) {
	for config, says := range map[string]string{
		`{"routing":{"rules":[{"domain":["regexp:\\.cn$"],"outboundTag":"direct"}]}}`:                           "",
		`{"routing":{"rules":[{"domain":["a.example","regexp:("],"outboundTag":"direct"}]}}`:                    "routing.rules[0].domain[1]",
		`{"routing":{"rules":[{"domain":"a.example,regexp:(","outboundTag":"direct"}]}}`:                        "routing.rules[0].domain[1]",
		`{"routing":{"rules":[{"domains":"regexp:a{1,2}","outboundTag":"direct"}]}}`:                            "",
		`{"routing":{"rules":[{"domain":["dotless:("],"outboundTag":"direct"}]}}`:                               "routing.rules[0].domain[0]",
		`{"routing":{"rules":[{"domain":["dotless:pc-","dotless:"],"outboundTag":"direct"}]}}`:                  "",
		`{"dns":{"hosts":{"dotless:(":"1.1.1.1"}}}`:                                                             "dns.hosts",
		`{"routing":{"rules":[{"attrs":{":method":"["},"outboundTag":"direct"}]}}`:                              "routing.rules[0].attrs.:method",
		`{"dns":{"servers":[{"address":"1.1.1.1","domains":["regexp:*"]}]}}`:                                    "dns.servers[0].domains[0]",
		`{"dns":{"hosts":{"regexp:(":"1.1.1.1"}}}`:                                                              "dns.hosts",
		`{"routing":{"balancers":[{"tag":"b","selector":["d"]},{"tag":"b","selector":["d"]}]}}`:                 "two balancers",
		`{"routing":{"rules":[{"ruleTag":"r","outboundTag":"direct"},{"ruleTag":"r","outboundTag":"direct"}]}}`: "ruleTag",
		`{"inbounds":[{"tag":"in-1","protocol":"vless","port":1,"settings":{"Clients":[]}}]}`:                   `"Clients" has to be written "clients"`,
		`{"routing":{"rules":[{"port":"1","outboundTag":"direct"},{"User":["a"],"outboundTag":"direct"}]}}`:     `routing.rules[1]: the member "User" has to be written "user"`,
		`{"routing":{"rules":[{"port":"1","OutboundTag":"direct"}]}}`:                                           `routing.rules[0]: the member "OutboundTag"`,
		`{"routing":{"rules":[{"InboundTag":["a"],"outboundTag":"direct"}]}}`:                                   `written "inboundTag"`,
		`{"routing":{"rules":[{"port":"1","balancertag":"b"}],"balancers":[{"tag":"b","selector":["d"]}]}}`:     `written "balancerTag"`,
		`{"routing":{"balancers":[{"Tag":"b","selector":["d"]}]}}`:                                              `routing.balancers[0]: the member "Tag"`,
		`{"routing":{"Rules":[]}}`: `routing: the member "Rules"`,
		`{"inbounds":[{"tag":"in-1","protocol":"shadowsocks","port":1,"settings":{"Method":"2022-blake3-aes-128-gcm"}}]}`:                       `written "method"`,
		`{"inbounds":[{"tag":"in-1","protocol":"wireguard","port":1,"settings":{"peers":[{"PublicKey":"a"}]}}]}`:                                `written "publicKey"`,
		`{"inbounds":[{"tag":"in-1","protocol":"vless","port":1,"Settings":{}}]}`:                                                               `written "settings"`,
		`{"inbounds":[{"tag":"in-1","protocol":"socks","port":1,"settings":{"accounts":[{"email":"a","user":"u"},{"email":"b","user":"u"}]}}]}`: `two accounts have the user "u"`,
	} {
		s, err := xraytest.Parse(config)
		if err == nil {
			err = errors.Join(Clients(state.State{}, s), Changed(state.State{}, s, time.Now()))
		}
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: got %v, want an error with %q", config, err, says)
		}
	}
}

func TestWarnings(t *testing.T) {
	now := time.Now()
	var clients []string
	for i := range slowClients + 1 {
		clients = append(clients, fmt.Sprintf(`{"id":"%08x-1111-4111-8111-111111111111"}`, i))
	}
	for name, c := range map[string]struct{ config, says string }{
		"nothing":                           {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443}]}`, ""},
		"one id for two, by their tags":     {`{"inbounds":[{"tag":"vless-443","protocol":"vless","port":1,"settings":{"clients":[]}},{"tag":"trojan-443","protocol":"vless","port":2}]}`, `inbounds "trojan-443" and "vless-443" both have nodeProtocolId 443`},
		"one id for two, explicitly":        {`{"inbounds":[{"tag":"a-1","protocol":"vless","port":1,"nodeProtocolId":7},{"tag":"b-2","protocol":"vless","port":2,"nodeProtocolId":7}]}`, "both have nodeProtocolId 7"},
		"many on vmess":                     {`{"inbounds":[{"tag":"in-1","protocol":"vmess","port":443,"settings":{"clients":[` + strings.Join(clients, ",") + `]}}]}`, "2001 clients"},
		"trojan in the open":                {`{"inbounds":[{"tag":"in-1","protocol":"trojan","port":443}]}`, "without TLS"},
		"trojan behind a proxy":             {`{"inbounds":[{"tag":"in-1","protocol":"trojan","port":443,"listen":"127.0.0.1"}]}`, ""},
		"an open proxy":                     {`{"inbounds":[{"tag":"in-1","protocol":"socks","port":443}]}`, "anybody"},
		"the PROXY protocol":                {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}]}`, "PROXY protocol"},
		"an odd member beside":              {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"settings":{"auth":1},"streamSettings":{"sockopt":[]},"allocate":{}}]}`, "allocate"},
		"the PROXY protocol of raw":         {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"rawSettings":{"acceptProxyProtocol":true}}}]}`, "PROXY protocol"},
		"the PROXY protocol of tcp":         {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"network":"TCP","tcpSettings":{"acceptProxyProtocol":true}}}]}`, "PROXY protocol"},
		"the PROXY protocol of ws":          {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"network":"ws","wsSettings":{"acceptProxyProtocol":true}}}]}`, "PROXY protocol"},
		"a PROXY protocol that is not used": {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"network":"grpc","wsSettings":{"acceptProxyProtocol":true}}}]}`, ""},
		"a trusted header":                  {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"network":"xhttp","sockopt":{"trustedXForwardedFor":["X-Secret"]}}}]}`, "X-Forwarded-For"},
		"a trusted header of gRPC":          {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"network":"grpc","sockopt":{"trustedXForwardedFor":["X-Secret"]}}}]}`, "trustedProxies"},
		"trusted proxies":                   {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"trustedProxies":["192.0.2.1"],"streamSettings":{"network":"ws","sockopt":{"trustedXForwardedFor":["X-Secret"]}}}]}`, ""},
		"the PROXY protocol and null":       {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"trustedProxies":null,"streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}]}`, "trustedProxies"},
		"everybody is trusted":              {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"trustedProxies":["0.0.0.0/0"]}],"routing":{"rules":[{"ip":["127.0.0.1"],"outboundTag":"direct"}]}}`, "every host can choose"},
		"the PROXY protocol on loopback":    {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"listen":"::1","streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}],"outbounds":[{"tag":"direct","protocol":"freedom","settings":{"finalRules":[{"action":"allow","ip":["127.0.0.0/8"]}]}}]}`, "over loopback"},
		"loopback is trusted":               {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"trustedProxies":["127.0.0.1"],"streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}],"outbounds":[{"tag":"direct","protocol":"freedom","settings":{"finalRules":[{"action":"allow","ip":["127.0.0.0/8"]}]}}]}`, "over loopback"},
		"clients are kept off loopback":     {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"listen":"::1","streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}]}`, ""},
		"clients of HTTP are kept off it":   {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"listen":"::1","streamSettings":{"sockopt":{"acceptProxyProtocol":true}}},{"tag":"in-2","protocol":"http","port":80,"settings":{"accounts":[{"user":"u","pass":"p"}]}}]}`, ""},
		"a rule allows all but the node":    {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"listen":"::1","streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}],"outbounds":[{"tag":"direct","protocol":"freedom","settings":{"finalRules":[{"action":"allow"}]}}]}`, ""},
		"clients do not reach loopback":     {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"listen":"::1","streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}],"routing":{"rules":[{"ip":"geoip:private","outboundTag":"direct"}]},"outbounds":[{"tag":"direct","protocol":"freedom","settings":{"finalRules":[{"action":"allow","ip":["::1"]}]}}]}`, ""},
		"headers beside PROXY":              {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"trustedProxies":["192.0.2.1"],"streamSettings":{"network":"ws","sockopt":{"acceptProxyProtocol":true,"trustedXForwardedFor":["X-Forwarded-For"]}}}]}`, "beside the PROXY protocol"},
		"a fallback to headers":             {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"settings":{"fallbacks":[{"dest":"127.0.0.1:8001"}]}},{"tag":"in-2","protocol":"vless","listen":"127.0.0.1","port":8001,"streamSettings":{"network":"ws","sockopt":{"trustedXForwardedFor":["X-Forwarded-For"]}}}],"routing":{"rules":[{"ip":["127.0.0.0/8"],"outboundTag":"direct"}]}}`, `fallback of "in-1"`},
		"a fallback to another one":         {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"settings":{"fallbacks":[{"dest":80}]}},{"tag":"in-2","protocol":"vless","listen":"127.0.0.1","port":8001,"streamSettings":{"network":"ws","sockopt":{"trustedXForwardedFor":["X-Forwarded-For"]}}}],"routing":{"rules":[{"ip":["127.0.0.0/8"],"outboundTag":"direct"}]}}`, ""},
		"a trusted header that is not read": {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"sockopt":{"trustedXForwardedFor":["X-Secret"]}}}]}`, ""},
		"accounts that are not asked for":   {`{"inbounds":[{"tag":"in-1","protocol":"mixed","port":443,"settings":{"accounts":[{"user":"u","pass":"p"}]}}]}`, "anybody"},
		"trojan with NONE":                  {`{"inbounds":[{"tag":"in-1","protocol":"trojan","port":443,"streamSettings":{"security":"NONE"}}]}`, "without TLS"},
		"allocate":                          {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"allocate":{"strategy":"always"}}]}`, `inbound "in-1": allocate is not used by Xray`},
		"encryption of an inbound":          {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"settings":{"decryption":"none","encryption":"none"}}]}`, "settings.encryption is not used"},
		"decryption of trojan":              {`{"inbounds":[{"tag":"in-1","protocol":"trojan","listen":"127.0.0.1","port":443,"settings":{"decryption":"none"}}]}`, "settings.decryption is not used"},
		"a domainMatcher":                   {`{"routing":{"domainMatcher":"hybrid"}}`, "routing.domainMatcher is not used"},
		"a rule's domainMatcher":            {`{"routing":{"rules":[{"port":"1","outboundTag":"direct","domainMatcher":"mph"}]}}`, "routing.rules[0].domainMatcher"},
		"workers of WireGuard":              {`{"outbounds":[{"tag":"w","protocol":"wireguard","settings":{"workers":2}}]}`, `outbound "w": settings.workers is not used`},
		"a buffer of mKCP":                  {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"network":"kcp","kcpSettings":{"readBufferSize":2}}}]}`, "kcpSettings.readBufferSize"},
		"a forced query of ECH":             {`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"streamSettings":{"tlsSettings":{"echForceQuery":"none"}}}]}`, "tlsSettings.echForceQuery"},
		"a peer's private key":              {`{"inbounds":[{"tag":"in-1","protocol":"wireguard","port":443,"settings":{"peers":[{"publicKey":"a","privateKey":"b"}]}}]}`, "a peer's privateKey"},
		"a rule for every client":           {`{"routing":{"rules":[{"port":"1","user":[],"outboundTag":"direct"}]}}`, "rules[0].user is empty"},
		"a rule with null for its users":    {`{"routing":{"rules":[{"port":"1","user":null,"outboundTag":"direct"}]}}`, ""},
		"a rule for a missing inbound":      {`{"routing":{"rules":[{"inboundTag":["gone"],"outboundTag":"direct"}]}}`, `"gone"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := xraytest.Parse(c.config)
			if err != nil {
				t.Fatal(err)
			}
			warnings := Warnings(s, now)
			if c.says == "" && len(warnings) > 0 || c.says != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], c.says)) {
				t.Errorf("warnings %q, want one with %q", warnings, c.says)
			}
		})
	}
}

// Without the host's files, what is wrong in the text is found all the same, and nothing else.
func TestTextAloneIsChecked(t *testing.T) {
	now := time.Now()
	for certificate, want := range map[string]string{
		`{"certificateFile":"/nonexistent/c","keyFile":"/nonexistent/k"}`: "",
		`{"certificateFile":"c.pem","keyFile":"/nonexistent/k"}`:          `"c.pem" is not an absolute path`,
		`{"certificateFile":"/nonexistent/c","keyFile":"k.pem"}`:          `"k.pem" is not an absolute path`,
		`{"certificate":["x"],"key":["y"]}`:                               "failed to find any PEM data",
		``:                                                                "TLS and no certificate",
	} {
		s, err := xraytest.Parse(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","streamSettings":{"security":"tls","tlsSettings":{"certificates":[` + certificate + `]}}}]}`)
		if err != nil {
			t.Fatal(err)
		}
		err = ChangedText(state.State{}, s, now)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", certificate, err, want)
		}
		if warnings := WarningsOfText(s, now); want == "" && len(warnings) > 0 {
			t.Errorf("%s: got the warnings %q", certificate, warnings)
		}
	}
}
