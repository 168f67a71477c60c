package xray_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/testfiles"

	xnet "github.com/xtls/xray-core/common/net"
)

const observed = `,"observatory":{"subjectSelector":["direct"],"probeInterval":"1h"}`

// An inbound that could not be restored, for its port is held, holds up no change of the others:
// removed clients go.
func TestAMissingInboundHoldsUpNobody(t *testing.T) {
	r := newRig(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	outbounds := `{"tag":"direct","protocol":"freedom"}`
	both := r.plan(`{"id":"`+aliceID+`"},{"id":"`+bobID+`"}`, busy.Addr().(*net.TCPAddr).Port, outbounds, `{}`, "in-2")
	without := r.plan(`{"id":"`+bobID+`"}`, busy.Addr().(*net.TCPAddr).Port, outbounds, `{}`, "in-2")
	if err := r.engine.Restore(t.Context(), both); err == nil {
		t.Fatal("restored on a port that is held")
	}
	alice, bob := r.dial(aliceID), r.dial(bobID)
	r.apply(without)
	r.cut(alice)
	if _, err := r.tryDial(aliceID); err == nil {
		t.Error("alice could return")
	}
	if err := use(bob); err != nil {
		t.Errorf("bob's connection: %v", err)
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	r.eventually("the inbound runs", func() bool {
		for _, in := range r.engine.Status().Inbounds {
			if in.State != "running" {
				return false
			}
		}
		return true
	})
}

// The clients of an inbound whose port is taken are checked all the same: one bad client would keep
// the inbound down when its port is free again.
func TestAMissingInboundIsChecked(t *testing.T) {
	r := newRig(t)
	busy, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := r.engine.Restore(t.Context(), r.shadowsocks("alice")); err == nil {
		t.Fatal("restored on a port that is held")
	}
	bad := r.shadowsocks("alice", "bob")
	for i := range bad.Inbounds["in-1"].Clients {
		if c := bad.Inbounds["in-1"].Clients[i]; c.Key == "bob" {
			c.Account = []byte(fmt.Sprintf(`{"email":%q,"password":%q,"level":"x"}`, c.Email, ssKey("bob")))
		}
	}
	if err := r.engine.Apply(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "cannot unmarshal") {
		t.Errorf("a level that is no number: %v", err)
	}
	r.apply(r.shadowsocks("alice", "bob"))
}

// A state that is gone back to is reached whole: with its own observatory, while the
// worker before drains.
func TestRestoreTakesAnotherObservatory(t *testing.T) {
	r := newRig(t)
	r.apply(r.state(observed, aliceID, bobID))
	pid, alice, bob := r.engine.Status().PID, r.dial(aliceID), r.dial(bobID)
	if err := r.engine.Restore(t.Context(), r.state("", bobID)); err != nil {
		t.Fatal(err)
	}
	if now := r.engine.Status(); now.PID == pid || now.Draining != 1 {
		t.Errorf("status %+v, of another worker than %d", now, pid)
	}
	r.cut(alice)
	r.eventually("alice's slot is closed", r.slotClosed(1))
	if err := use(bob); err != nil {
		t.Errorf("bob's connection: %v", err)
	}
	r.dial(bobID)
}

// The slot is closed of a client that is in no worker at the time, for the next one waits, and not
// in the state that is restored.
func TestRestoreClosesSlots(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", aliceID, bobID))
	for range 2 { // after the second end the next worker waits
		pid := r.engine.Status().PID
		sendSignal(t, pid, syscall.SIGKILL)
		r.eventually("it is seen", func() bool { return r.engine.Status().PID != pid })
	}
	if err := r.engine.Restore(t.Context(), r.state("", bobID)); err != nil {
		t.Fatal(err)
	}
	r.dial(bobID)
	r.eventually("alice's slot is closed", r.slotClosed(1))
}

// Limits that change, and inbounds that go, hold for the open streams of a worker that
// drains too.
func TestADrainingWorkerFollows(t *testing.T) {
	r := newRig(t)
	door := freePort(t)
	state := func(limits string, more string, doors bool) string {
		text := `{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q%s}]}}`
		text = fmt.Sprintf(text, r.port, bobID, limits)
		if doors {
			text += fmt.Sprintf(`,{"tag":"door","listen":"127.0.0.1","port":%d,"protocol":"dokodemo-door","settings":{"address":"127.0.0.1","port":%d,"network":"tcp"}}`,
				door, r.echo.Addr().(*net.TCPAddr).Port)
		}
		return `{"inbounds":[` + text + `],"outbounds":[{"tag":"direct","protocol":"freedom"}]` + more + `}`
	}
	r.native(state("", "", true))
	bob := r.dial(bobID)
	nobody, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", door))
	if err == nil {
		err = use(nobody)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.native(state("", observed, true))
	if err := use(nobody); err != nil {
		t.Fatalf("the worker that drains does not serve: %v", err)
	}
	held := r.engine.Status().HeldBack
	r.native(state(`,"rateDownBitsPerSecond":80000,"rateUpBitsPerSecond":80000`, observed, false))
	r.cut(nobody)
	began := time.Now()
	for range 40 { // 20 kB at 10 kB/s
		if _, err := bob.Write(make([]byte, 500)); err != nil {
			t.Fatal(err)
		}
		for left := 500; left > 0; {
			n, err := bob.Read(make([]byte, left))
			if err != nil {
				t.Fatal(err)
			}
			left -= n
		}
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("20 kB took %s in the worker that drains (held back %v before): the rate does not hold there", took, held)
	}
}

// An old worker with an open stream ends when its time is over: by itself, and where it
// does not keep to it the engine ends it. No process stays.
func TestADrainIsBounded(t *testing.T) {
	for name, endless := range map[string]bool{"by the worker": false, "by the engine": true} {
		t.Run(name, func(t *testing.T) {
			r := newRigThatDrains(t, 200*time.Millisecond)
			if endless {
				testfiles.Replace(t, filepath.Join(r.assets, "fail"), []byte(endlessDrain))
			}
			r.apply(r.state("", bobID))
			bob := r.dial(bobID)
			r.apply(r.state(observed, bobID))
			r.cut(bob)
			r.eventually("the old worker is gone", func() bool { return r.engine.Status().Draining == 0 })
			if left := children(t, os.Getpid()); len(left) != 1 {
				t.Errorf("%d processes live on", len(left))
			}
			said := slices.ContainsFunc(r.log.records(t, "worker says"), func(record map[string]any) bool { return record["line"] == endedByItself })
			if said == endless {
				t.Errorf("the old worker ended by itself: %v, want %v", said, !endless)
			}
			r.dial(bobID)
		})
	}
}

// The reader of a source's datagrams ends with the inbound, whose socket is closed.
func TestDatagramSourcesEndWithTheirInbound(t *testing.T) {
	const rounds = 12
	for name, c := range map[string]struct{ inbound, outbound string }{
		"shadowsocks": {
			`"protocol":"shadowsocks","settings":{"network":"tcp,udp","clients":[{"email":"bob","method":"aes-128-gcm","password":"p"}]}`,
			`"protocol":"shadowsocks","settings":{"servers":[{"address":"127.0.0.1","port":%d,"method":"aes-128-gcm","password":"p"}]}`,
		},
		"shadowsocks 2022": {
			`"protocol":"shadowsocks","settings":{"method":"` + ssMethod + `","password":"` + ssKey("server") + `","network":"tcp,udp","clients":[{"email":"bob","password":"` + ssKey("bob") + `"}]}`,
			`"protocol":"shadowsocks","settings":{"servers":[{"address":"127.0.0.1","port":%d,"method":"` + ssMethod + `","password":"` + ssKey("server") + ":" + ssKey("bob") + `"}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			echo := echoDatagrams(t)
			apply := func(round int) {
				r.native(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,%s,"sniffing":{"enabled":%v}}],"outbounds":[{"tag":"direct","protocol":"freedom"}]}`, r.port, c.inbound, round%2 == 0))
			}
			apply(0)
			r.eventually("the worker tells of itself", func() bool { return r.engine.Status().Goroutines > 0 })
			before := r.engine.Status().Goroutines
			for round := range rounds {
				conn, err := r.dialOutboundTo("{"+fmt.Sprintf(c.outbound, r.port)+"}", xnet.UDPDestination(xnet.IPAddress(echo.IP), xnet.Port(echo.Port)))
				if err == nil {
					err = use(conn)
				}
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				_ = conn.Close()
				apply(round + 1)
			}
			r.eventually("the readers have ended", func() bool {
				s := r.engine.Status()
				return s.Streams == 0 && s.Goroutines < before+rounds
			})
		})
	}
}

// echoDatagrams answers each with itself.
func echoDatagrams(t *testing.T) *net.UDPAddr {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		data := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDP(data)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDP(data[:n], from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr)
}
