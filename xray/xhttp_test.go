package xray_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// xhttpState has one VLESS inbound over XHTTP with bob.
func (r *rig) xhttpState(listen string) state.State {
	r.t.Helper()
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1",%s,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q}]},
		"streamSettings":{"network":"xhttp","xhttpSettings":{"path":"/x"}}}]}`, listen, bobID))
	s.Inbounds["in-1"].Clients[0].Slot = 2
	return s
}

// Where it can't listen the change is refused, and what was before goes on.
func TestXHTTPThatCannotListenIsRefused(t *testing.T) {
	r := newRig(t)
	r.apply(r.xhttpState(fmt.Sprintf(`"listen":"127.0.0.1","port":%d`, r.port)))
	socket := filepath.Join(t.TempDir(), "missing", "socket")
	err := r.engine.Apply(t.Context(), r.xhttpState(fmt.Sprintf(`"listen":%q`, socket)))
	if _, ok := errors.AsType[*fault.Fault](err); !ok {
		t.Errorf("error %v", err)
	}
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/elsewhere", r.port))
	if err != nil {
		t.Fatal(err)
	}
	if _ = answer.Body.Close(); answer.StatusCode != http.StatusNotFound {
		t.Errorf("the one before answers %s", answer.Status)
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
