package xray_test

import (
	"fmt"
	"slices"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// crowd returns a state whose inbound has more clients than one operation brings.
func (r *rig) crowd() state.State {
	r.t.Helper()
	together, once := state.UsersTogether, state.UsersAtOnce
	r.t.Cleanup(func() { state.UsersTogether, state.UsersAtOnce = together, once })
	state.UsersTogether, state.UsersAtOnce = 1, 2
	return r.state(`,"outbounds":[{"tag":"direct","protocol":"freedom"}]`, aliceID, bobID, carolID)
}

// A new worker lets an inbound listen once it has all its clients, which come in several operations: at the
// start, after a crash, and when it takes over.
func TestManyClientsComeBeforeTheInboundListens(t *testing.T) {
	r := newRig(t)
	s := r.crowd()
	clients := s.Inbounds["in-1"].Clients
	served := func() {
		t.Helper()
		for _, c := range clients {
			r.dial(c.Key)
		}
		if _, err := r.tryDial(daveID); err == nil {
			t.Error("a client is served that there is not")
		}
	}
	if err := r.engine.Restore(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	served()
	first := r.engine.Status().PID
	panicWorker(t, first)
	r.replaced(first, patience)
	served()
	second := r.engine.Status().PID
	s.Base.Observatory = []byte(`{"subjectSelector":["direct"],"probeInterval":"1h"}`)
	r.apply(s)
	if r.engine.Status().PID == second {
		t.Fatal("no other worker has taken over")
	}
	served()
}

// Where a client of a later operation can't be had, its inbound does not listen and has no clients in the
// worker. The fault names the client, and the inbound is served once that client is gone.
func TestAnInboundIsDroppedWithALaterClient(t *testing.T) {
	r := newRig(t)
	good := r.crowd()
	bad := good
	in := good.Inbounds["in-1"]
	in.Clients = slices.Clone(in.Clients)
	last := len(in.Clients) - 1
	wrong := *in.Clients[last]
	wrong.Account = fmt.Appendf(nil, `{"email":%q,"id":%q,"level":"x"}`, wrong.Email, wrong.Key)
	in.Clients[last] = &wrong
	bad.Inbounds = map[string]state.Inbound{"in-1": in}
	err := r.engine.Restore(t.Context(), bad)
	if f := fault.From(err); f == nil || f.ClientEmail != wrong.Email {
		t.Fatalf("got %v, want a fault of the client %s", err, wrong.Email)
	}
	if status := r.engine.Status().Inbounds; len(status) != 1 || status[0].State != "failed" {
		t.Errorf("the inbounds are %+v", status)
	}
	if _, err := r.tryDial(in.Clients[0].Key); err == nil {
		t.Error("a client is served whose inbound is missing")
	}
	r.end(nil)
	r.run()
	if err := r.engine.Restore(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	r.dial(in.Clients[0].Key)
	r.dial(wrong.Key)
}
