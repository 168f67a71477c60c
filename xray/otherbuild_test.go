package xray

import (
	"encoding/json"
	"testing"

	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// A worker of another build gets no operation that it may not know: an inbound comes to it with all of its
// clients at once.
func TestAWorkerOfAnotherBuildPreparesNothing(t *testing.T) {
	client := func(email string) *state.Client { return &state.Client{Email: email} }
	in := state.Inbound{Tag: "in", Clients: state.Clients{client("a"), client("b"), client("c")}}
	to := state.State{Inbounds: map[string]state.Inbound{"in": in}}
	together, once := state.UsersTogether, state.UsersAtOnce
	defer func() { state.UsersTogether, state.UsersAtOnce = together, once }()
	state.UsersTogether, state.UsersAtOnce = 1, 2
	for _, c := range []struct {
		name   string
		worker *workerClient
		want   int // operations
	}{
		{"of this build", &workerClient{build: ipc.Build()}, 3},
		{"of this build, beside another one", &workerClient{build: ipc.Build(), beside: true}, 4},
		{"of another build", &workerClient{build: "other"}, 1},
		{"of another build, beside another one", &workerClient{build: "other", beside: true}, 1},
	} {
		ops := state.TogetherWithClients(state.Diff(state.State{}, to), to, c.worker.usersTogether())
		if len(ops) != c.want || c.want == 1 && ops[0].Kind != state.OpReplaceInbound {
			t.Errorf("a worker %s gets %d operations, want %d: %+v", c.name, len(ops), c.want, ops)
		}
	}
}

// A worker takes a unix socket from the one before when an inbound listens, and not when it is prepared.
func TestAPreparedInboundTakesNoSocket(t *testing.T) {
	in := state.Inbound{Tag: "in", Protocol: "vless", Config: json.RawMessage(`{"listen":"/run/in.sock","protocol":"vless"}`)}
	prepare := state.Operation{Kind: state.OpPrepareInbound, Tag: "in", Inbound: &in}
	if taken := takenSockets([]state.Operation{prepare}); len(taken) > 0 {
		t.Errorf("a prepared inbound has taken %+v", taken)
	}
	if taken := takenSockets([]state.Operation{prepare, {Kind: state.OpOpenInbound, Tag: "in", Inbound: &in}}); len(taken) != 1 {
		t.Errorf("an open inbound has taken %+v, want its socket", taken)
	}
}
