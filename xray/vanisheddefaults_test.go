package xray_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"nodeagent/internal/namespace"
)

// At the default times a client that vanishes is offline within 85 seconds, idle or not; agent adds
// accounting.session_linger, 30 seconds. One that is there and says nothing stays online, and its
// connection is good.
func TestVanishedAtDefaults(t *testing.T) {
	if os.Getenv(defaultTimes) == "" {
		t.Skipf("NOT RUN: it takes some two minutes; make vanished runs it, or set %s=1", defaultTimes)
	}
	if !namespace.Inside(t, "true") {
		return
	}
	phone := namespace.NewPhone(t, "10.77.0.2/24", "10.77.0.3/24", "10.77.0.4/24")
	online := &presences{}
	r := newRigThatTells(t, online.heard)
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"0.0.0.0","port":%d,"protocol":"vless","settings":{"decryption":"none",
		"clients":[{"id":%q},{"id":%q}]}}]}`, r.port, aliceID, bobID))
	for i := range s.Inbounds["in-1"].Clients {
		c := s.Inbounds["in-1"].Clients[i]
		c.Slot = map[string]uint32{aliceID: 1, bobID: 2}[c.Key]
	}
	r.apply(s)
	dial := func(from, id string, to net.Addr) net.Conn {
		conn, err := r.phoneDial(phone, from, id, to.(*net.TCPAddr))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	silent := dial("10.77.0.2", bobID, r.echo.Addr())
	dial("10.77.0.3", aliceID, r.echo.Addr())
	busy := dial("10.77.0.4", aliceID, pourer(t))
	go func() { _, _ = io.Copy(io.Discard, busy) }()
	gone := []string{"10.77.0.3", "10.77.0.4"}
	for _, from := range gone {
		r.eventually("alice is online", func() bool { return online.is(1, from) })
	}
	begin := time.Now()
	for _, from := range gone {
		phone.Leave(from + "/24")
	}
	for _, from := range gone {
		r.within(2*time.Minute, "alice is offline at "+from, func() bool { return !online.is(1, from) })
		t.Logf("%s was offline after %s", from, time.Since(begin).Round(time.Second))
	}
	if !online.is(2, "10.77.0.2") {
		t.Error("bob, who is there, is offline")
	}
	if err := use(silent); err != nil {
		t.Errorf("a client that was silent was cut: %v", err)
	}
}
