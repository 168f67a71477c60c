package xray_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
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
	block, _ := pem.Decode([]byte(certificate))
	pin := sha256.Sum256(block.Bytes)
	bob, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"hysteria","settings":{"version":2,"address":"127.0.0.1","port":%d},
		"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2,"auth":%q},"security":"tls","tlsSettings":{"serverName":"site.test","pinnedPeerCertSha256":%q}}}`,
		port, bobID, hex.EncodeToString(pin[:])))
	if err != nil {
		t.Fatal(err)
	}
	if err := use(bob); err != nil { // an open stream, without which the worker ends by itself
		t.Fatal(err)
	}
	before := r.engine.Status().PID
	with(func(s *state.State) { s.Base.Observatory = observatory })
	if r.engine.Status().PID == before {
		t.Fatal("no other worker has taken over")
	}
	with(func(s *state.State) {
		s.Base.Observatory, s.Policy = observatory, json.RawMessage(`{"levels":{"0":{"connIdle":301}}}`)
	})
	if err := use(bob); err != nil {
		t.Fatalf("the connection has ended before the routing changed: %v", err)
	}
	with(func(s *state.State) {
		s.Base.Observatory, s.Routing = observatory, json.RawMessage(`{"domainStrategy":"AsIs"}`)
	})
	r.cut(bob)
	enterHysteria(t, port, bobID)
}
