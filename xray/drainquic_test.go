package xray_test

import (
	"encoding/json"
	"testing"
	"time"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// A connection over QUIC stays with the worker that drains until the routing changes: then it ends, and
// the client comes to the worker that serves.
func TestRoutingEndsConnectionsOfADrainingWorker(t *testing.T) {
	r := newRig(t)
	port := freePort(t)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	with := func(change func(*state.State)) {
		s := r.hysteriaState(port, certificate, key, bobID)
		change(&s)
		r.apply(s)
	}
	observatory := json.RawMessage(`{"probeInterval":"1h","subjectSelector":["direct"]}`)
	with(func(*state.State) {})
	bob := enterHysteria(t, port, bobID)
	before := r.engine.Status().PID
	with(func(s *state.State) { s.Base.Observatory = observatory })
	if r.engine.Status().PID == before {
		t.Fatal("no other worker has taken over")
	}
	with(func(s *state.State) {
		s.Base.Observatory, s.Policy = observatory, json.RawMessage(`{"levels":{"0":{"connIdle":301}}}`)
	})
	if err := bob.conn.Context().Err(); err != nil {
		t.Fatalf("the connection has ended before the routing changed: %v", err)
	}
	with(func(s *state.State) {
		s.Base.Observatory, s.Routing = observatory, json.RawMessage(`{"domainStrategy":"AsIs"}`)
	})
	select {
	case <-bob.conn.Context().Done():
	case <-time.After(patience):
		t.Fatal("the connection goes on with the old routing")
	}
	enterHysteria(t, port, bobID)
}
