package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/xray/state"
)

// A loop that hangs is told after its limit; what takes long for a reason is not.
func TestStuck(t *testing.T) {
	for name, c := range map[string]struct {
		hang func(n *node, forever chan struct{})
		want string // empty where nothing hangs
		at   time.Duration
	}{
		"nothing hangs": {func(*node, chan struct{}) {}, "", 2 * time.Hour},
		"Core is away": {func(n *node, _ chan struct{}) {
			n.core.heartbeat = func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
				return wire.HeartbeatResponse{}, errors.New("no route")
			}
		}, "", 2 * time.Hour},
		"Core holds heartbeats": {func(n *node, _ chan struct{}) {
			n.core.heartbeat = func(_ context.Context, _ wire.HeartbeatRequest, wait time.Duration) (wire.HeartbeatResponse, error) {
				time.Sleep(wait + 20*time.Second)
				return wire.HeartbeatResponse{OK: true, Held: true}, nil
			}
		}, "", time.Hour},
		"an apply takes ten minutes each time": {func(n *node, _ chan struct{}) {
			n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
			n.engine.fail = func(state.State) error {
				time.Sleep(10 * time.Minute)
				return errors.New("busy")
			}
		}, "", 6 * time.Hour},
		"the heartbeat hangs": {func(n *node, forever chan struct{}) {
			n.core.heartbeat = func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
				<-forever
				return wire.HeartbeatResponse{}, errors.New("at last")
			}
		}, "a heartbeat", 6 * time.Minute},
		"an apply hangs": {func(n *node, forever chan struct{}) {
			n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
			n.engine.fail = func(state.State) error { <-forever; return nil }
		}, "an apply", 16 * time.Minute},
		"the read of the counters hangs": {func(n *node, forever chan struct{}) {
			n.mtproto.collecting = func() { <-forever }
		}, "a read of the counters", 6 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			db := openStore(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, db)
				forever := make(chan struct{})
				c.hang(n, forever)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- n.Run(ctx) }()
				for range 100 {
					time.Sleep(c.at / 100)
					if got := n.Stuck(); c.want == "" && got != "" {
						t.Fatalf("nothing hangs, and it says %q", got)
					}
				}
				if got := n.Stuck(); c.want != "" && !strings.Contains(got, c.want) {
					t.Errorf("after %s it says %q, want %q", c.at, got, c.want)
				}
				close(forever)
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Intervals change while the agent runs, and an interval that makes no sense changes nothing.
func TestSetIntervals(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(time.Minute)
		if err := n.SetIntervals(Config{HeartbeatInterval: time.Second, CollectInterval: time.Second, SessionLinger: time.Second}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // each loop ends the round that it is in
		count := func() (heartbeats, reads int) {
			n.core.mu.Lock()
			defer n.core.mu.Unlock()
			n.mtproto.mu.Lock()
			defer n.mtproto.mu.Unlock()
			return len(n.core.heartbeats), n.mtproto.collects
		}
		heartbeats, reads := count()
		time.Sleep(time.Minute)
		heartbeatsNow, readsNow := count()
		if got := heartbeatsNow - heartbeats; got < 55 {
			t.Errorf("%d heartbeats in a minute, want one each second", got)
		}
		if got := readsNow - reads; got < 59 {
			t.Errorf("%d reads in a minute, want one each second", got)
		}
		if err := n.SetIntervals(Config{HeartbeatInterval: time.Hour, CollectInterval: time.Hour}); err == nil {
			t.Error("an hour between two reads was taken")
		}
		if got := n.live().HeartbeatInterval; got != time.Second {
			t.Errorf("the refused settings changed the heartbeat to %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
