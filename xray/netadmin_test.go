package xray

import (
	"encoding/json"
	"testing"

	"nodeagent/xray/state"
)

func TestNeedsNetAdmin(t *testing.T) {
	in := func(protocol, config string) state.State {
		return state.State{Inbounds: map[string]state.Inbound{"in-1": {Protocol: protocol, Config: json.RawMessage(config)}}}
	}
	out := func(config string) state.State {
		return state.State{Outbounds: []state.Outbound{{Config: json.RawMessage(config)}}}
	}
	for name, c := range map[string]struct {
		state state.State
		want  bool
	}{
		"nothing":                      {state.State{}, false},
		"an inbound":                   {in("vless", `{"streamSettings":{"network":"ws"}}`), false},
		"TUN":                          {in("tun", `{}`), true},
		"a transparent inbound":        {in("dokodemo-door", `{"streamSettings":{"sockopt":{"tproxy":"tproxy"}}}`), true},
		"an outbound":                  {out(`{"protocol":"freedom"}`), false},
		"a mark":                       {out(`{"protocol":"freedom","streamSettings":{"sockopt":{"Mark":255}}}`), true},
		"congestion":                   {out(`{"protocol":"freedom","streamSettings":{"sockopt":{"tcpCongestion":"bbr"}}}`), true},
		"another option":               {in("vless", `{"streamSettings":{"sockopt":{"customSockopt":[{"level":"1","opt":"36","value":"1"}]}}}`), true},
		"WireGuard":                    {out(`{"protocol":"wireguard","settings":{}}`), true},
		"WireGuard without a kernel's": {out(`{"protocol":"wireguard","settings":{"noKernelTun":true}}`), false},
	} {
		if got := needsNetAdmin(c.state); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
