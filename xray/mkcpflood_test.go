package xray_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"testing"
)

// Datagrams of strangers that begin mKCP connections cost a worker little memory, and its clients
// are served meanwhile: those that are there, and new ones.
func TestMKCPFlood(t *testing.T) {
	const (
		packets = 20_000
		mostMB  = 100
		// A connection has some goroutines; without the bound there were more than 6,000.
		mostGoroutines = 2500
	)
	r := newRig(t)
	port := freePort(t)
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless",
		"settings":{"decryption":"none","clients":[{"email":"a","id":%q}]},"streamSettings":{"network":"kcp"}}]}`, port, aliceID)), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	r.apply(s)
	dial := func() net.Conn {
		conn, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]},
			"streamSettings":{"network":"kcp"}}`, port, aliceID))
		if err == nil {
			err = use(conn)
		}
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	there := dial()
	pid := r.engine.Status().PID
	before := residentMB(t, pid, "VmRSS")
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		flood(t, port, packets, func() []byte {
			// A data segment with a random conversation (transport/internet/kcp/segment.go).
			segment := make([]byte, 18+200)
			_, _ = rand.Read(segment)
			copy(segment[2:], []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200})
			return segment
		})
	}()
	for during := true; during; {
		select {
		case <-flooded:
			during = false
		default:
		}
		if err := use(there); err != nil {
			t.Fatalf("a client that is there: %v", err)
		}
	}
	_ = dial().Close()
	most := residentMB(t, pid, "VmHWM") - before
	t.Logf("%d datagrams cost at most %d MB, and there are %d goroutines", packets, most, r.engine.Status().Goroutines)
	if most > mostMB {
		t.Errorf("%d datagrams of strangers cost %d MB, want at most %d", packets, most, mostMB)
	}
	if n := r.engine.Status().Goroutines; n > mostGoroutines {
		t.Errorf("%d datagrams of strangers left %d goroutines, want at most %d", packets, n, mostGoroutines)
	}
	if now := r.engine.Status().PID; now != pid {
		t.Errorf("worker %d was replaced by %d", pid, now)
	}
}
