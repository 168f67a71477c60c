package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/internal/wait"
	"nodeagent/store"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// kinds returns the kinds of a node's problems.
func (n *node) kinds(t *testing.T) (all []ProblemKind) {
	t.Helper()
	for _, p := range n.mustStatus(t).Problems {
		all = append(all, p.Kind)
	}
	return all
}

func (n *node) mustStatus(t *testing.T) Status {
	t.Helper()
	s, err := n.Status()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each trouble is a problem while it lasts and the last error while it is the latest. Once it
// is over there is no problem any more, and the last error says that it is over.
func TestTroublesEnd(t *testing.T) {
	away := func(err error) func(*node) {
		return func(n *node) {
			n.core.heartbeat = func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
				return wire.HeartbeatResponse{}, err
			}
		}
	}
	for name, c := range map[string]struct {
		begin, end func(*node)
		want       ProblemKind
		words      string // in the problem
		untold     bool   // it is no last error
	}{
		"Core does not answer": {
			away(errors.New("no route")), func(n *node) { n.core.heartbeat = nil },
			CoreUnreachable, "no route", false,
		},
		"Core does not accept the key": {
			away(status(401)), func(n *node) { n.core.heartbeat = nil },
			KeyRejected, "does not accept this node's key", true,
		},
		"Core gives no configuration": {
			func(n *node) { n.core.heartbeat, n.core.configError = behind(3), errors.New("cut short") },
			func(n *node) { n.core.heartbeat, n.core.configError = nil, nil },
			CoreUnreachable, "cut short", false,
		},
		"the clock is off": {
			func(n *node) { n.core.skew = -time.Hour }, func(n *node) { n.core.skew = 0 },
			Attention, "1h0m0s behind", false,
		},
		"a configuration is refused": {
			func(n *node) {
				n.engine.fail = func(state.State) error { return fault.PortTaken("vless-7", 443, "port 443 is taken") }
				n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 4, 443), `"4"`, behind(4)
			},
			func(n *node) {
				n.engine.mu.Lock()
				defer n.engine.mu.Unlock()
				n.engine.fail = nil
			},
			ConfigRefused, "port 443 is taken", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := openStore(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, db)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- n.Run(ctx) }()
				change := func(do func(*node), lasting time.Duration) {
					n.core.mu.Lock()
					do(n)
					n.core.mu.Unlock()
					time.Sleep(lasting)
					synctest.Wait()
				}
				change(func(*node) {}, time.Minute)
				if kinds := n.kinds(t); len(kinds) > 0 {
					t.Errorf("problems %v before anything happened", kinds)
				}
				change(c.begin, 2*time.Minute)
				s := n.mustStatus(t)
				if len(s.Problems) != 1 || s.Problems[0].Kind != c.want || !strings.Contains(s.Problems[0].Message, c.words) {
					t.Errorf("problems %+v, want one of kind %s with %q", s.Problems, c.want, c.words)
				} else if age := time.Since(s.Problems[0].Since); age < time.Minute || age > 3*time.Minute {
					t.Errorf("it lasts since %s, want about two minutes", age)
				}
				if !c.untold && (s.Error == nil || s.Error.Over) {
					t.Errorf("the last error is %+v, want one that is not over", s.Error)
				}
				change(c.end, 11*time.Minute)
				s = n.mustStatus(t)
				if len(s.Problems) > 0 {
					t.Errorf("problems %+v after it was over", s.Problems)
				}
				if !c.untold && (s.Error == nil || !s.Error.Over) {
					t.Errorf("the last error is %+v, want one that is over", s.Error)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A heartbeat that Core holds was answered before: status knows at once that Core is there,
// also after Core was away.
func TestStatusKnowsCoreWhileItHoldsHeartbeats(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		var away atomic.Bool
		n.core.heartbeat = func(ctx context.Context, _ wire.HeartbeatRequest, most time.Duration) (wire.HeartbeatResponse, error) {
			if away.Load() {
				return wire.HeartbeatResponse{}, errors.New("no route")
			}
			if !wait.For(ctx, most) {
				return wire.HeartbeatResponse{}, ctx.Err()
			}
			return wire.HeartbeatResponse{OK: true}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		synctest.Wait()
		if s := n.mustStatus(t); s.Core.LastHeartbeat.IsZero() || len(s.Problems) > 0 {
			t.Errorf("Core answers, and status says %+v, problems %+v", s.Core, s.Problems)
		}
		away.Store(true)
		time.Sleep(5 * time.Minute)
		away.Store(false)
		time.Sleep(time.Minute + time.Second) // the longest pause between two heartbeats
		synctest.Wait()
		if s := n.mustStatus(t); *s.Core.AgeSeconds > 61 || len(s.Problems) > 0 {
			t.Errorf("Core is back, and status says %+v, problems %+v", s.Core, s.Problems)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Problems contain the states of the engines, the worst first.
func TestEnginesProblems(t *testing.T) {
	db := openStore(t)
	n := newNode(t, db)
	n.link.Heartbeat(nil)
	n.checkClock(time.Hour, nil)
	n.engine.status = xray.Status{
		State: "running", Inbounds: []xray.InboundStatus{{Tag: "a", State: "running"}, {Tag: "b", State: "failed", Error: "the port is taken"}},
		Exhausted: &xray.Exhausted{Message: "no descriptor left"},
	}
	batch := store.SessionEvent{SessionKey: store.SessionKey{Slot: 1}, Event: wire.SessionEvent{UserID: 1, EventType: wire.Online}}
	if err := db.Sessions(time.Now(), []store.SessionEvent{batch}); err != nil {
		t.Fatal(err)
	}
	if b, found, err := db.Next(store.KindEvents); err != nil || !found || db.SetAside(time.Now(), b, "422") != nil {
		t.Fatalf("set a batch aside: %v, found %v", err, found)
	}
	want := []ProblemKind{NotServed, Attention, Attention, Attention}
	if got := n.kinds(t); !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v", got, want)
	}
	if first := n.mustStatus(t).Problems[0].Message; !strings.Contains(first, `"b"`) || !strings.Contains(first, "the port is taken") {
		t.Errorf("the first problem is %q", first)
	}
	n.engine.status = xray.Status{State: "restarting", LastRestart: "crash: signal: killed"}
	if first := n.mustStatus(t).Problems[0]; first.Kind != NotServed || !strings.Contains(first.Message, "signal: killed") {
		t.Errorf("the first problem is %+v", first)
	}
}
