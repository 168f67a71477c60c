package parse_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// A client is tied by the first of its members that is a key of the client map. A client
// without such a member is served untied.
func TestParseTiesClients(t *testing.T) {
	s, err := xraytest.Parse(`{"inbounds":[{"tag":"vless-12","protocol":"VLESS","port":443,"settings":{"decryption":"none","clients":[
		{"id":"`+xraytest.UUIDA+`","email":"somebody"},
		{"id":"`+xraytest.UUIDB+`","email":"an unknown client"}]}}]}`, xraytest.UUIDA)
	if err != nil {
		t.Fatal(err)
	}
	in := s.Inbounds["vless-12"]
	if in.NodeProtocolID != 12 || in.VPNProtocol != "vless" {
		t.Errorf("inbound is attributed to %d %q", in.NodeProtocolID, in.VPNProtocol)
	}
	tied := map[string]bool{}
	for _, c := range in.Clients {
		tied[c.Key] = c.Tied
	}
	if len(tied) != 2 || !tied[xraytest.UUIDA] || tied["an unknown client"] {
		t.Errorf("keys %v, want %s tied and an unknown client not", tied, xraytest.UUIDA)
	}
	if strings.Contains(string(in.Config), xraytest.UUIDA) {
		t.Errorf("the config has clients: %s", in.Config)
	}
}

func TestParse(t *testing.T) {
	inbound := func(clients string) string {
		return `{"inbounds":[{"tag":"in","nodeProtocolId":7,"protocolName":"x","protocol":"vless","port":443,"settings":{"clients":[` + clients + `]}}]}`
	}
	s, err := xraytest.Parse(inbound(`{"id":"`+xraytest.UUIDA+`","limitIps":2,"rateUpBitsPerSecond":8000}`), xraytest.UUIDA)
	if err != nil {
		t.Fatal(err)
	}
	in := s.Inbounds["in"]
	if in.NodeProtocolID != 7 || in.VPNProtocol != "x" {
		t.Errorf("inbound is attributed to %d %q", in.NodeProtocolID, in.VPNProtocol)
	}
	for _, c := range in.Clients {
		if c.Key != xraytest.UUIDA || !c.Tied || c.Limits != (state.Limits{IPs: 2, RateUpBitsPerSecond: 8000}) || c.Group == "" {
			t.Errorf("client %+v", c)
		}
		if want := `{"email":"` + c.Email + `","id":"` + xraytest.UUIDA + `"}`; string(c.Account) != want {
			t.Errorf("account %s, want %s", c.Account, want)
		}
	}
	if s.DefaultOutbound() != "direct" {
		t.Errorf("default outbound %q, want direct", s.DefaultOutbound())
	}
	again, err := xraytest.Parse(strings.ReplaceAll(inbound(`{ "rateUpBitsPerSecond":8000,"limitIps":2,"id":"`+xraytest.UUIDA+`"}`), `"port":443`, `"port" : 443`), xraytest.UUIDA)
	if err != nil {
		t.Fatal(err)
	}
	if ops := state.Diff(s, again); len(ops) != 0 {
		t.Errorf("the same configuration in other white space and order differs: %s", xraytest.OperationsText(ops))
	}
}

func TestParseRefuses(t *testing.T) {
	vless := func(members, clients string) string {
		return `{"inbounds":[{"tag":"in-1","protocol":"vless","port":443` + members + `,"settings":{"clients":[` + clients + `]}}]}`
	}
	a := `{"id":"` + xraytest.UUIDA + `"}`
	for _, c := range []struct{ name, config, says string }{
		{"no object", `[]`, "services.xray"},
		{"an unknown part", `{"inbound":[]}`, `has no member "inbound"; did you mean "inbounds"?`},
		{"an unknown part without a near name", `{"something":[]}`, `has no member "something"`},
		{"no tag", `{"inbounds":[{"protocol":"vless"}]}`, "inbounds[0] has no tag"},
		{"a tag twice", `{"inbounds":[{"tag":"a","port":1},{"tag":"a","port":2}]}`, `two inbounds have the tag "a"`},
		{"no attribution", strings.ReplaceAll(vless("", a), "in-1", "in"), "nodeProtocolId"},
		{"no UUID", vless("", `{"id":"abc"}`), "not a UUID"},
		{"a UUID with a slip", vless("", `{"id":"`+xraytest.UUIDA[:35]+`g"}`), "not a UUID"},
		{"no id", vless("", `{"email":"x"}`), "it has no id"},
		{"a client without a key", vless("", `{"level":0}`), "none of email, id, password and auth"},
		{"a client twice", vless("", a+","+a), "same key"},
		{"a UUID twice", vless("", `{"email":"x","id":"`+xraytest.UUIDA+`"},{"email":"y","id":"`+xraytest.UUIDA+`"}`), "clients[0] and clients[1] have one UUID"},
		{"a UUID twice for Xray", vless("", `{"email":"x","id":"`+xraytest.UUIDA+`"},{"email":"y","id":"`+xraytest.UUIDA2+`"}`), "one UUID"},
		{"a negative limit", vless("", `{"id":"`+xraytest.UUIDA+`","limitIps":-1}`), "negative"},
		{"no port", `{"inbounds":[{"tag":"in-1","protocol":"vless"}]}`, "no port"},
		{"no valid port", `{"inbounds":[{"tag":"in-1","port":70000}]}`, "70000"},
		{"an outbound of nothing", `{"outbounds":[null]}`, "null"},
		{"a port range backwards", `{"inbounds":[{"tag":"in-1","port":"20-10"}]}`, "20-10"},
		{"no IP address", `{"inbounds":[{"tag":"in-1","port":1,"listen":"here"}]}`, `"here"`},
		{"two on a port", `{"inbounds":[{"tag":"a","port":443,"listen":"127.0.0.1"},{"tag":"b","port":"440-445"}]}`, `inbounds "a" and "b" both listen on port 443`},
		{"an outbound twice", `{"outbounds":[{"tag":"a"},{"tag":"a"}]}`, `two outbounds have the tag "a"`},
		{"an outbound without tag", `{"outbounds":[{"protocol":"freedom"}]}`, "outbounds[0] has no tag"},
		{"a rule to no balancer", `{"routing":{"rules":[{"balancerTag":"b"}]}}`, `balancer "b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := xraytest.Parse(c.config)
			if _, ok := errors.AsType[*fault.Fault](err); !ok || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a fault that says %q", err, c.says)
			}
		})
	}
}

// Rules name clients by Core's names, which the worker's names replace.
func TestRoutingRulesNameClients(t *testing.T) {
	const inbounds = `{"inbounds":[
		{"tag":"a-1","protocol":"vless","port":1,"settings":{"clients":[{"id":"` + xraytest.UUIDA + `","email":"alice@x"},{"id":"` + xraytest.UUIDB + `","email":"bob@x"}]}},
		{"tag":"b-2","protocol":"vless","port":2,"settings":{"clients":[{"id":"` + xraytest.UUIDA + `","email":"alice@x"}]}}],
		"routing":{"rules":[{"user":%s,"outboundTag":"direct"}]}}`
	for user, want := range map[string]int{`["alice@x"]`: 2, `"alice@x,bob@x"`: 3, `["regexp:^b"]`: 1, `["carol@x"]`: 1} {
		s, err := xraytest.Parse(strings.Replace(inbounds, "%s", user, 1))
		if err != nil {
			t.Fatal(err)
		}
		var routing struct{ Rules []struct{ User []string } }
		if err := json.Unmarshal(s.Routing, &routing); err != nil {
			t.Fatal(err)
		}
		got := routing.Rules[0].User
		if len(got) != want || strings.Contains(strings.Join(got, " "), "@") {
			t.Errorf("user %s became %v", user, got)
		}
		if user == `["carol@x"]` && got[0] != "nobody" {
			t.Errorf("an unknown user became %v", got)
		}
	}
	if _, err := xraytest.Parse(strings.Replace(inbounds, "%s", `["regexp:("]`, 1)); err == nil || !strings.Contains(err.Error(), "rules[0].user") {
		t.Errorf("a bad expression: %v", err)
	}
}

// An empty list of users is no condition, as in Xray.
func TestRoutingRulesWithoutUsers(t *testing.T) {
	for _, user := range []string{`[]`, `null`} {
		s, err := xraytest.Parse(`{"routing":{"rules":[{"port":"25","user":` + user + `,"outboundTag":"direct"}]}}`)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(s.Routing), `"user":`+user) {
			t.Errorf("user %s became %s", user, s.Routing)
		}
	}
}

func TestTCPAndUDPShareAPort(t *testing.T) {
	_, err := xraytest.Parse(`{"inbounds":[{"tag":"a","protocol":"vless","port":443},{"tag":"b","protocol":"hysteria","port":443}]}`)
	if err != nil {
		t.Error(err)
	}
}
