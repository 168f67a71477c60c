package state_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// A member of another kind hides no other member.
func TestViewsGoOnAfterAnOddMember(t *testing.T) {
	in := state.Inbound{Protocol: "trojan", Config: json.RawMessage(`{"listen":"127.0.0.1","port":443,"settings":{"method":5,"flow":"f"},
		"streamSettings":{"network":"WS","security":7,"sockopt":{"tproxy":[],"acceptProxyProtocol":true}}}`)}
	v := in.View()
	if v.Listen != "127.0.0.1" || v.Settings.Flow != "f" || v.Stream.Network != "ws" || !v.Stream.ProxyProtocol() {
		t.Errorf("view %+v", v)
	}
}

// A view that was made when the document was parsed says what the text says, also after
// what changes the text.
func TestViewsFollowTheText(t *testing.T) {
	s, err := xraytest.Parse(`{"inbounds":[{"tag":"in-1","port":1080,"protocol":"socks","settings":{"auth":"password","accounts":[{"user":"a","pass":"b"},{"user":"c","pass":"d"}]}}],
		"routing":{"rules":[{"user":["a"],"outboundTag":"direct"}],"balancers":[]}}`, "a", "c")
	if err != nil {
		t.Fatal(err)
	}
	fresh := func(in state.Inbound) *state.InboundView {
		return state.Inbound{Protocol: in.Protocol, Config: in.Config}.View()
	}
	in := s.Inbounds["in-1"]
	if !reflect.DeepEqual(in.View(), fresh(in)) {
		t.Error("the parsed view differs from the text")
	}
	less, err := in.Without(func(c *state.Client) bool { return c.User == "a" })
	if err != nil {
		t.Fatal(err)
	}
	if accounts := less.View().Settings.Accounts; len(accounts) != 1 || !reflect.DeepEqual(less.View(), fresh(less)) {
		t.Errorf("accounts %s", accounts)
	}
	if rules := s.RoutingView().Rules; len(rules) != 1 || string(rules[0].User) == `["a"]` {
		t.Errorf("rules %+v", rules)
	}
	after := s.After(state.Operation{Kind: state.OpSetRouting, Routing: json.RawMessage(`{"rules":[{"ruleTag":"x"},{}]}`)})
	if rules := after.RoutingView().Rules; len(rules) != 2 || rules[0].RuleTag != "x" {
		t.Errorf("rules after a change %+v", rules)
	}
}
