//go:build !race

// Stock clients of XHTTP have races of their own (splithttp/dialer.go:602, client.go:205), and so has xray-core's
// mKCP where a listener is closed (transport/internet/kcp/receiving.go:157 and 186).

package xray_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// mkcpOn is a VLESS inbound over mKCP with these masks.
func (r *rig) mkcpOn(port int, masks string) state.State {
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"email":"a","id":%q}]},
		"streamSettings":{"network":"kcp"%s}}],"outbounds":[{"tag":"direct","protocol":"freedom"}]}`, port, aliceID, masks))
	for _, c := range s.Inbounds["in-1"].Clients {
		c.Slot = 1
	}
	return s
}

// move moves size bytes there and back.
func move(conn net.Conn, size int) error {
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		written <- err
	}()
	_ = conn.SetReadDeadline(time.Now().Add(4 * patience))
	_, err := io.ReadFull(conn, make([]byte, size))
	return errors.Join(err, <-written)
}

// Connections over mKCP go on in the worker that drains, whatever socket the kernel chooses and whatever
// hides what mKCP says; new ones come to the next worker. Each byte is counted once. The worker ends with its
// last connection, and gives its port up where its inbound moves.
func TestMKCPOutlivesATakeover(t *testing.T) {
	for name, c := range map[string]struct {
		masks string
		moves bool // the inbound moves to another port while connections are open
	}{
		"plain":           {"", false},
		"with a password": {`,"finalmask":{"udp":[{"type":"mkcp-legacy","settings":{"header":"","value":"hush-hush"}}]}`, true},
	} {
		masks := c.masks
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			port := freePort(t)
			dial := func() net.Conn {
				t.Helper()
				conn, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]},
					"streamSettings":{"network":"kcp"%s}}`, port, aliceID, masks))
				if err == nil {
					err = use(conn)
				}
				if err != nil {
					t.Fatal(err)
				}
				return conn
			}
			r.apply(r.mkcpOn(port, masks))
			const each, size = 6, 300_000
			want := uint64(0)
			var conns []net.Conn
			for range each {
				conns = append(conns, dial())
				want += uint64(len("there and back"))
			}
			old := r.engine.Status().PID
			r.apply(observing(r.mkcpOn(port, masks)))
			if s := r.engine.Status(); s.PID == old || s.Draining != 1 {
				t.Fatalf("status %+v, want a worker that drains beside another one", s)
			}
			var moving sync.WaitGroup
			for i, conn := range conns {
				want += size
				moving.Go(func() {
					if err := move(conn, size); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
				})
			}
			moving.Wait()
			for range each {
				conn := dial()
				want += uint64(len("there and back"))
				defer conn.Close()
			}
			if up, down := r.counters.Read(1); up != want || down != want {
				t.Errorf("%d bytes up and %d down were counted, want %d", up, down, want)
			}
			if s := r.engine.Status(); s.Draining != 1 {
				t.Errorf("status %+v, want that the worker drains", s)
			}
			if c.moves {
				left := port
				port = freePort(t)
				r.apply(observing(r.mkcpOn(port, masks)))
				r.eventually("no worker holds the port that the inbound has left", func() bool {
					conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: left})
					if err == nil {
						_ = conn.Close()
					}
					return err == nil
				})
				dial()
				return
			}
			for _, conn := range conns {
				_ = conn.Close()
			}
			r.within(3*time.Minute, "the worker that drains ends", func() bool { return r.engine.Status().Draining == 0 })
		})
	}
}

// xhttpLimited is a state with an inbound over XHTTP whose client bob has limits, and more of Core's JSON.
func (r *rig) xhttpLimited(more string, limits state.Limits) state.State {
	r.t.Helper()
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q}]},
		"streamSettings":{"network":"xhttp","xhttpSettings":{"path":"/x"}}}],"outbounds":[{"tag":"direct","protocol":"freedom"}]%s}`, r.port, bobID, more))
	bob := s.Inbounds["in-1"].Clients[0]
	bob.Slot, bob.Limits, bob.Group = 2, limits, parse.GroupOf(bob.Key)
	return s
}

// overXHTTP opens a stream of bob from an address. Each of its connections carries two requests.
func (r *rig) overXHTTP(address string) (net.Conn, error) {
	conn, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"vless","sendThrough":%q,"settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]},
		"streamSettings":{"network":"xhttp","xhttpSettings":{"path":"/x","mode":"packet-up","extra":{"xmux":{"hMaxRequestTimes":"2-2"}}}}}`, address, r.port, bobID))
	if err != nil {
		return nil, err
	}
	return conn, use(conn)
}

// A stream whose requests one worker passes to another counts once, for the client who sends them and from
// that client's address, until it ends; it ends with its client.
func TestLimitsOfPassedRequests(t *testing.T) {
	for _, limits := range []state.Limits{{IPs: 1}, {Connections: 1}} {
		t.Run(fmt.Sprintf("%+v", limits), func(t *testing.T) {
			r := newRig(t)
			r.apply(r.xhttpLimited("", limits))
			first, err := r.overXHTTP("127.0.0.1")
			if err != nil {
				t.Fatal(err)
			}
			old := r.engine.Status().PID
			r.apply(r.xhttpLimited(observed, limits))
			if r.engine.Status().PID == old {
				t.Fatal("no other worker has taken over")
			}
			for i := range 10 { // the old worker has the session, and the new one gets the requests
				if err := use(first); err != nil {
					t.Fatalf("use %d after the takeover: %v", i, err)
				}
			}
			if conn, err := r.overXHTTP("127.0.0.2"); err == nil {
				t.Error("the limit does not hold")
				_ = conn.Close()
			}
			if limits.IPs > 0 {
				second, err := r.overXHTTP("127.0.0.1")
				if err != nil {
					t.Fatalf("another stream from the same address: %v", err)
				}
				_ = second.Close()
			}
			_ = first.Close()
			var next net.Conn
			r.eventually("a stream from another address after the end of the first", func() bool {
				var err error
				next, err = r.overXHTTP("127.0.0.2")
				return err == nil
			})
			r.apply(r.xhttpLimited("", limits)) // the session stays with the worker that drains now
			if err := use(next); err != nil {
				t.Fatal(err)
			}
			gone := r.xhttpLimited("", limits)
			in := gone.Inbounds["in-1"]
			in.Clients = nil
			gone.Inbounds["in-1"] = in
			r.apply(gone)
			r.cut(next)
		})
	}
}
