package xray_test

import (
	"fmt"
	"slices"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// crowd returns a state whose inbound has more clients than one operation brings.
func (r *rig) crowd() state.State {
	r.t.Helper()
	ids := make([]string, state.UsersTogether+100)
	for i := range ids {
		ids[i] = benchID(i)
	}
	return r.state(fmt.Sprintf(`,"outbounds":[{"tag":"direct","protocol":"freedom"}]`), ids...)
}

// idOf is the id of a client of crowd.
func idOf(c *state.Client) string { return c.Key }

// A new worker lets an inbound listen once it has all its clients, which come in several operations: at the
// start, after a crash, and when it takes over.
func TestManyClientsComeBeforeTheInboundListens(t *testing.T) {
	r := newRig(t)
	s := r.crowd()
	clients := s.Inbounds["in-1"].Clients
	served := func() {
		t.Helper()
		for _, c := range []*state.Client{clients[0], clients[len(clients)-1]} {
			r.dial(idOf(c))
		}
		if _, err := r.tryDial(aliceID); err == nil {
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
	wrong := *in.Clients[state.UsersTogether+50]
	wrong.Account = fmt.Appendf(nil, `{"email":%q,"id":%q,"level":"x"}`, wrong.Email, idOf(&wrong))
	in.Clients[state.UsersTogether+50] = &wrong
	bad.Inbounds = map[string]state.Inbound{"in-1": in}
	err := r.engine.Restore(t.Context(), bad)
	if f := fault.From(err); f == nil || f.ClientEmail != wrong.Email {
		t.Fatalf("got %v, want a fault of the client %s", err, wrong.Email)
	}
	if status := r.engine.Status().Inbounds; len(status) != 1 || status[0].State != "failed" {
		t.Errorf("the inbounds are %+v", status)
	}
	if _, err := r.tryDial(idOf(in.Clients[0])); err == nil {
		t.Error("a client is served whose inbound is missing")
	}
	r.end(nil)
	r.run()
	if err := r.engine.Restore(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	r.dial(idOf(in.Clients[0]))
	r.dial(idOf(&wrong))
}

// A daemon that is killed while the clients come leaves an inbound that does not listen: the next daemon
// serves it.
func TestThePreparedInboundOfAKilledDaemon(t *testing.T) {
	r := newRigWithOrphans(t)
	s := r.crowd()
	if err := r.engine.Restore(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	_ = xray.Failure{}
}
