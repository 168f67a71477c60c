package xray

import (
	"encoding/json"
	"fmt"
	"testing"

	"nodeagent/xray/state"
)

// A worker that drains gives its inbounds over QUIC up once new streams are to take other ways than its
// own, and no other inbound: those have no listeners.
func TestADrainingWorkerKeepsNoOldWays(t *testing.T) {
	tcp := state.Inbound{Tag: "tcp", Protocol: "vless", Config: json.RawMessage(`{"listen":"127.0.0.1","port":1,"protocol":"vless"}`)}
	quic := state.Inbound{Tag: "quic", Protocol: "hysteria", Config: json.RawMessage(`{"listen":"127.0.0.1","port":2,"protocol":"hysteria","streamSettings":{"network":"hysteria"}}`)}
	direct := state.Outbound{Tag: "direct", Config: json.RawMessage(`{"protocol":"freedom","tag":"direct"}`), Slot: 3}
	hole := state.Outbound{Tag: "hole", Config: json.RawMessage(`{"protocol":"blackhole","tag":"hole"}`)}
	slotted, changed := direct, direct
	slotted.Slot = 4
	changed.Config = json.RawMessage(`{"protocol":"blackhole","tag":"direct"}`)
	from := state.State{
		Inbounds: map[string]state.Inbound{"tcp": tcp, "quic": quic}, Outbounds: []state.Outbound{direct, hole},
		Routing: json.RawMessage(`{"rules":[]}`), DNS: json.RawMessage(`{"tag":"a"}`),
	}
	adopted := func(s state.State) (told state.State) { // as a worker tells of it
		text, err := json.Marshal(s)
		if err == nil {
			err = json.Unmarshal(text, &told)
		}
		if err != nil {
			t.Fatal(err)
		}
		return told
	}
	for name, c := range map[string]struct {
		change func(*state.State)
		want   string
	}{
		"nothing":          {func(*state.State) {}, "[]"},
		"policy":           {func(s *state.State) { s.Policy = json.RawMessage(`{}`) }, "[]"},
		"a slot":           {func(s *state.State) { s.Outbounds = []state.Outbound{slotted, hole} }, "[]"},
		"routing":          {func(s *state.State) { s.Routing = nil }, "[release_inbound quic]"},
		"dns":              {func(s *state.State) { s.DNS = json.RawMessage(`{"tag":"b"}`) }, "[release_inbound quic]"},
		"an outbound":      {func(s *state.State) { s.Outbounds = []state.Outbound{changed, hole} }, "[release_inbound quic]"},
		"an outbound more": {func(s *state.State) { s.Outbounds = []state.Outbound{direct, hole, {Tag: "b"}} }, "[release_inbound quic]"},
		"the default":      {func(s *state.State) { s.Outbounds = []state.Outbound{hole, direct} }, "[release_inbound quic]"},
	} {
		to := from
		c.change(&to)
		var got []string
		for _, op := range syncDrainedOps(from, to) {
			got = append(got, string(op.Kind)+" "+op.Tag)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s changes: %v, want %s", name, got, c.want)
		}
	}
	from.Routing, from.DNS = nil, nil
	if ops := syncDrainedOps(adopted(from), from); len(ops) > 0 {
		t.Errorf("a worker that tells of no routing and no DNS gets %v", ops)
	}
}
