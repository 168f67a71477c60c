package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/parse"
	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// Two clients with one secret are refused where one of them is new. The error does not quote
// the secret.
func TestClientsOfOnePassword(t *testing.T) {
	const secret = "hush-hush"
	parse := func(protocol, clients string) state.State {
		t.Helper()
		s, err := xraytest.Parse(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","port":1,"protocol":%q,"settings":{"clients":[%s]}}]}`, protocol, clients))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct {
		protocol, first, second string
		refused                 bool
	}{
		"trojan":                      {"trojan", `{"email":"a","password":"hush-hush"}`, `{"email":"b","password":"hush-h\u0075sh"}`, true},
		"shadowsocks":                 {"shadowsocks", `{"email":"a","method":"aes-128-gcm","password":"hush-hush"}`, `{"email":"b","method":"AEAD_AES_128_GCM","password":"hush-hush"}`, true},
		"shadowsocks, two ciphers":    {"shadowsocks", `{"email":"a","method":"aes-128-gcm","password":"hush-hush"}`, `{"email":"b","method":"aes-256-gcm","password":"hush-hush"}`, false},
		"shadowsocks 2022":            {"shadowsocks", `{"email":"a","password":"hush-hush"}`, `{"email":"b","password":"hush-hush"}`, true},
		"hysteria":                    {"hysteria", `{"email":"a","auth":"hush-hush"}`, `{"email":"b","auth":"hush-hush"}`, true},
		"UUIDs of one route":          {"hysteria", `{"email":"a","auth":"` + xraytest.UUIDA + `"}`, `{"email":"b","auth":"{` + xraytest.UUIDA2 + `}"}`, true},
		"another password":            {"trojan", `{"email":"a","password":"hush-hush"}`, `{"email":"b","password":"other"}`, false},
		"an email that is a secret":   {"trojan", `{"email":"hush-hush","password":"hush-hush"}`, `{"email":"b","password":"hush-hush"}`, true},
		"a client without an email":   {"trojan", `{"password":"hush-hush"}`, `{"email":"b","password":"hush-hush"}`, true},
		"vless has UUIDs and no such": {"vless", `{"email":"a","id":"` + xraytest.UUIDA + `"}`, `{"email":"b","id":"` + xraytest.UUIDB + `"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			one, both := parse(c.protocol, c.first), parse(c.protocol, c.first+","+c.second)
			for _, from := range []state.State{{}, one} {
				err := checkPasswords(from, both)
				if (err != nil) != c.refused {
					t.Errorf("got %v", err)
				}
				if err != nil && (!strings.Contains(err.Error(), `"b"`) || strings.Contains(err.Error(), secret)) {
					t.Errorf("the error does not name the client, or quotes the secret: %v", err)
				}
			}
			if err := checkPasswords(both, one); err != nil {
				t.Errorf("the removal of a client is refused: %v", err)
			}
			third := parse(c.protocol, c.first+","+c.second+`,{"email":"c","id":"33333333-3333-4333-8333-333333333333","auth":"c","password":"c"}`)
			if err := checkPasswords(both, third); err != nil {
				t.Errorf("a running configuration is refused: %v", err)
			}
		})
	}
}

// isChecked checks that a new configuration is refused with the text says, or accepted where
// says is empty, and that the same configuration is accepted where it already runs.
func isChecked(t *testing.T, config, says string) {
	t.Helper()
	s, err := xraytest.Parse(config)
	if err != nil {
		t.Fatal(err)
	}
	check := func(from, to state.State) error { return errors.Join(Clients(from, to), Changed(from, to, time.Now())) }
	err = check(state.State{}, s)
	if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
		t.Errorf("got %v, want an error with %q", err, says)
	}
	more := s
	more.DNS = []byte(`{"tag":"another"}`)
	if err := check(s, more); err != nil {
		t.Errorf("a running configuration is refused: %v", err)
	}
}

// A check does not refuse what a node already runs.
func TestNewChecks(t *testing.T) {
	outbounds := func(list string) string { return `{"outbounds":[{"tag":"direct"},` + list + `]}` }
	through := func(tag, other string) string {
		return fmt.Sprintf(`{"tag":%q,"streamSettings":{"sockopt":{"dialerProxy":%q}}}`, tag, other)
	}
	socks := func(protocol, settings string) string {
		return fmt.Sprintf(`{"inbounds":[{"tag":"in-1","port":1,"protocol":%q,"settings":{%s}}]}`, protocol, settings)
	}
	for name, c := range map[string]struct{ config, says string }{
		"a chain":                                  {outbounds(through("a", "b") + "," + through("b", "direct")), ""},
		"a chain to nowhere":                       {outbounds(through("a", "nowhere")), `outbound "a": sockopt.dialerProxy names outbound "nowhere"`},
		"proxySettings to nowhere":                 {outbounds(`{"tag":"a","proxySettings":{"tag":"nowhere"}}`), `proxySettings.tag names outbound "nowhere"`},
		"a chain to itself":                        {outbounds(through("a", "a")), `a > a`},
		"a circle":                                 {outbounds(through("a", "b") + `,{"tag":"b","proxySettings":{"tag":"a"}},` + through("c", "a")), `a > b > a`},
		"a chain to a balancer":                    {`{"outbounds":[{"tag":"direct"},` + through("a", "b") + `],"routing":{"balancers":[{"tag":"b","selector":["direct"]}]}}`, `"b", which does not exist`},
		"a way back through nowhere":               {outbounds(`{"tag":"a","streamSettings":{"network":"xhttp","xhttpSettings":{"extra":{"downloadSettings":{"sockopt":{"dialerProxy":"nowhere"}}}}}}`), `outbound "a": downloadSettings.sockopt.dialerProxy names outbound "nowhere"`},
		"a way back through itself":                {outbounds(`{"tag":"a","streamSettings":{"network":"xhttp","xhttpSettings":{"downloadSettings":{"sockopt":{"dialerProxy":"b"}}}}},` + through("b", "a")), `a > b > a`},
		"a rule to nowhere":                        {`{"routing":{"rules":[{"outboundTag":"nowhere"}]}}`, `routing.rules[0] names outbound "nowhere"`},
		"a balancer of nothing":                    {`{"routing":{"balancers":[{"tag":"b","selector":["x"]}]}}`, `balancer "b": selector selects no outbound`},
		"a balancer without selectors":             {`{"routing":{"balancers":[{"tag":"b"}]}}`, `balancer "b": selector selects no outbound`},
		"a fallback to nowhere":                    {`{"routing":{"balancers":[{"tag":"b","selector":["direct"],"fallbackTag":"x"}]}}`, `fallbackTag names outbound "x"`},
		"a chain to a client":                      {`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","settings":{"clients":[{"id":"` + xraytest.UUIDA + `","reverse":{"tag":"r"}}]}}],"outbounds":[{"tag":"direct"},` + through("a", "r") + `]}`, ""},
		"a rule for an empty name":                 {`{"routing":{"rules":[{"port":"1","outboundTag":"direct"},{"user":["a",""],"outboundTag":"direct"}]}}`, `routing.rules[1].user has an empty name`},
		"a rule for an empty text":                 {`{"routing":{"rules":[{"user":"","outboundTag":"direct"}]}}`, `routing.rules[0].user has an empty name`},
		"a rule with an empty list of users":       {`{"routing":{"rules":[{"port":"1","user":[],"outboundTag":"direct"}]}}`, ""},
		"a rule for networks":                      {`{"routing":{"rules":[{"network":"TCP,udp","outboundTag":"direct"},{"network":["unix"],"outboundTag":"direct"},{"port":"1","network":null,"outboundTag":"direct"}]}}`, ""},
		"a rule for an unknown network":            {`{"routing":{"rules":[{"network":"tpc","outboundTag":"direct"}]}}`, `routing.rules[0].network: "tpc" is not a network`},
		"a rule for one among others":              {`{"routing":{"rules":[{"network":["tcp",""],"outboundTag":"direct"}]}}`, `"" is not a network`},
		"a rule for networks with a space":         {`{"routing":{"rules":[{"network":"tcp, udp","outboundTag":"direct"}]}}`, `" udp" is not a network`},
		"a tunnel for both networks":               {`{"inbounds":[{"tag":"in-1","port":1,"protocol":"tunnel","settings":{"network":"tcp,UDP"}}]}`, ""},
		"a tunnel for an unknown network":          {`{"inbounds":[{"tag":"in-1","port":1,"protocol":"tunnel","settings":{"network":"tcp, udp"}}]}`, `inbound "in-1": settings.network: " udp" is not a network`},
		"a tunnel for no network":                  {`{"inbounds":[{"tag":"in-1","port":1,"protocol":"shadowsocks","settings":{"network":[]}}]}`, "listen on nothing"},
		"accounts and noauth":                      {socks("socks", `"auth":"noauth","accounts":[{"user":"u","pass":"p"}]`), "anybody"},
		"accounts without auth":                    {socks("mixed", `"accounts":[{"user":"u","pass":"p"}]`), "anybody"},
		"auth of another kind":                     {socks("socks", `"auth":"Password","accounts":[{"user":"u","pass":"p"}]`), `"Password"`},
		"accounts and a password":                  {socks("socks", `"auth":"password","accounts":[{"user":"u","pass":"p"}]`), ""},
		"a domain strategy in any case":            {`{"routing":{"domainStrategy":"ipIfNonMatch"}}`, ""},
		"an unknown domain strategy":               {`{"routing":{"domainStrategy":"IPIfNotMatch"}}`, `"IPIfNotMatch"`},
		"leastPing without an observatory":         {`{"routing":{"balancers":[{"tag":"b","selector":["direct"],"strategy":{"type":"leastPing"}}]}}`, `balancer "b"`},
		"leastLoad without an observatory":         {`{"routing":{"balancers":[{"tag":"b","selector":["direct"],"strategy":{"type":"LEASTLOAD"}}]}}`, "observatory"},
		"leastPing with one":                       {`{"routing":{"balancers":[{"tag":"b","selector":["direct"],"strategy":{"type":"leastPing"}}]},"observatory":{"subjectSelector":["direct"]}}`, ""},
		"leastLoad with the other":                 {`{"routing":{"balancers":[{"tag":"b","selector":["direct"],"strategy":{"type":"leastLoad"}}]},"burstObservatory":{"subjectSelector":["direct"]}}`, ""},
		"costs with a bad expression":              {`{"routing":{"balancers":[{"tag":"b","selector":["direct"],"strategy":{"type":"leastLoad","settings":{"costs":[{"match":"a","regexp":true},{"match":"(","regexp":true}]}}}]},"observatory":{"subjectSelector":["direct"]}}`, "costs[1].match"},
		"costs without expressions":                {`{"routing":{"balancers":[{"tag":"b","selector":["direct"],"strategy":{"type":"leastLoad","settings":{"costs":[{"match":"("}]}}}]},"observatory":{"subjectSelector":["direct"]}}`, ""},
		"an excluded domain":                       {`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","sniffing":{"domainsExcluded":["a.example","regexp:\\.b$"]}}]}`, ""},
		"an excluded domain with a bad expression": {`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","sniffing":{"domainsExcluded":["a.example","regexp:("]}}]}`, "domainsExcluded[1]"},
		"an expression with capitals":              {`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","sniffing":{"domainsExcluded":"regexp:(?P<n>a)"}}]}`, ""},
		"an outbound with a UUID":                  {outbounds(`{"tag":"a","protocol":"vless","settings":{"vnext":[{"users":[{"id":"` + xraytest.UUIDA + `"}]}]}}`), ""},
		"a password is no id":                      {outbounds(`{"tag":"a","protocol":"trojan","settings":{"address":"a","password":"hush"}}`), ""},
		"an open one that says so":                 {socks("socks", `"auth":"noauth"`), ""},
		"HTTP's accounts need no auth":             {socks("http", `"accounts":[{"user":"u","pass":"p"}]`), ""},
	} {
		t.Run(name, func(t *testing.T) { isChecked(t, c.config, c.says) })
	}
}

// A change of clients alone does not check rules that already run.
func TestNewClientsUnderOldRules(t *testing.T) {
	parse := func(id string) state.State {
		t.Helper()
		s, err := xraytest.Parse(`{"inbounds":[{"tag":"in-1","protocol":"vless","port":1,"settings":{"clients":[{"id":"` + id + `","email":"a"}]}}],
			"routing":{"rules":[{"user":["a",""],"domain":["regexp:("],"outboundTag":"direct"}]}}`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := Changed(parse(xraytest.UUIDA), parse(xraytest.UUIDB), time.Now()); err != nil {
		t.Error(err)
	}
}

// A rule that names a client is the same rule when the client changes.
func TestStateHasRouting(t *testing.T) {
	parse := func(id, out string) state.State {
		t.Helper()
		s, err := xraytest.Parse(`{"inbounds":[{"tag":"in-1","protocol":"vless","port":1,"settings":{"clients":[{"id":"` + id + `","email":"a"}]}}],
			"routing":{"rules":[{"user":["a"],"outboundTag":"` + out + `"}]},"outbounds":[{"tag":"direct"},{"tag":"other"}]}`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	has := func(from, to state.State) bool {
		return from.HasAlready(state.Operation{Kind: state.OpSetRouting, Routing: to.Routing})
	}
	if !has(parse(xraytest.UUIDA, "direct"), parse(xraytest.UUIDB, "direct")) {
		t.Error("another client makes another routing")
	}
	if has(parse(xraytest.UUIDA, "direct"), parse(xraytest.UUIDA, "other")) || has(state.State{}, parse(xraytest.UUIDA, "direct")) {
		t.Error("another rule makes no other routing")
	}
}

// Two new peers with one key are refused.
func TestPeersOfOneKey(t *testing.T) {
	const base64Key, hexKey = "AQIDBAUGBwgBAgMEBQYHCAECAwQFBgcIAQIDBAUGBwg=", "0102030405060708010203040506070801020304050607080102030405060708"
	parse := func(first, second string) (state.State, error) {
		return parse.Service(json.RawMessage(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"wireguard","settings":{"secretKey":"`+base64Key+`","peers":[
			{"email":"a","publicKey":"`+first+`","allowedIPs":["10.0.0.2/32"]},{"email":"a","publicKey":"`+second+`"}]}}]}`), func(string) bool { return true })
	}
	twice, err := parse(base64Key, hexKey)
	if err != nil {
		t.Fatal(err) // parse accepts it, because it may run already
	}
	if err := checkPeers(state.State{}, twice); err == nil {
		t.Error("two peers with one key are accepted")
	}
	if err := checkPeers(twice, twice); err != nil {
		t.Errorf("a running configuration is refused: %v", err)
	}
	s, err := parse(base64Key, "another")
	if err != nil {
		t.Fatal(err)
	}
	all := s.Inbounds["in-1"].Clients
	if len(all) != 2 || all[0].Key == all[1].Key {
		t.Fatalf("clients %+v", all)
	}
	for _, c := range all {
		if want := map[string]int{"a": 1, "another": 2}[c.Key]; len(c.Addresses) != want { // a peer without allowedIPs has all addresses, as in Xray
			t.Errorf("%s has the networks %v", c.Key, c.Addresses)
		}
	}
}
