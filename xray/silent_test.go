package xray_test

import (
	"encoding/json"
	"fmt"
	"net"
	"testing"

	"nodeagent/xray/state"
)

// A connection to a gRPC inbound that says nothing keeps its server from ending. It
// holds up no change, and cuts nobody.
func TestSilentConnectionHoldsUpNothing(t *testing.T) {
	r := newRig(t)
	port := freePort(t)
	withGRPC := func(service, more string) state.State {
		s := r.state(more, bobID)
		other, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"grpc","listen":"127.0.0.1","port":%d,"protocol":"vless",
			"settings":{"decryption":"none"},"streamSettings":{"network":"grpc","grpcSettings":{"serviceName":%q}}}]}`, port, service)), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		s.Inbounds["grpc"] = other.Inbounds["grpc"]
		return s
	}
	silent := func() {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	r.apply(withGRPC("one", ""))
	bob, pid := r.dial(bobID), r.engine.Status().PID
	silent()
	r.apply(withGRPC("two", ""))
	silent()
	r.apply(r.state("", bobID))
	if err := use(bob); err != nil || r.engine.Status().PID != pid {
		t.Errorf("a change of another inbound touched bob: %v", err)
	}
	r.apply(withGRPC("one", ""))
	silent()
	r.apply(withGRPC("one", `,"observatory":{"subjectSelector":["direct"],"probeInterval":"1h"}`))
	for range 3 {
		if err := use(bob); err != nil {
			t.Fatalf("the draining worker does not serve bob: %v", err)
		}
		r.eventually("it answers and drains", func() bool { return r.engine.Status().Draining == 1 })
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) > 0 {
		t.Errorf("told failures %+v", r.failed)
	}
}

// Such a connection does not let the inbound's next ports listen on when it goes.
func TestSilentConnectionHoldsNoPort(t *testing.T) {
	r := newRig(t)
	ports := []int{freePort(t), freePort(t)}
	with, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"grpc","listen":"127.0.0.1","port":"%d,%d","protocol":"vless",
		"settings":{"decryption":"none"},"streamSettings":{"network":"grpc","grpcSettings":{"serviceName":"s"}}}]}`, ports[0], ports[1])), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	s := r.state("", bobID)
	s.Inbounds["grpc"] = with.Inbounds["grpc"]
	r.apply(s)
	for _, port := range ports { // both listen once it is applied
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	r.apply(r.state("", bobID))
	for _, port := range ports {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = conn.Close()
			t.Errorf("port %d of an inbound that is gone still listens", port)
		}
	}
}
