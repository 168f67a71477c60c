package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/internal/wait"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/telemt/service"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// during runs the agent for a while of the bubble's time and returns when it
// has ended.
func (n *node) during(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := n.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestHeartbeatPace(t *testing.T) {
	hold := func(ctx context.Context, _ wire.HeartbeatRequest, most time.Duration) (wire.HeartbeatResponse, error) {
		if !wait.For(ctx, most) {
			return wire.HeartbeatResponse{}, ctx.Err()
		}
		return wire.HeartbeatResponse{OK: true}, nil
	}
	fails := func(err error) func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
		return func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
			return wire.HeartbeatResponse{}, err
		}
	}
	for _, c := range []struct {
		name      string
		heartbeat func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error)
		min, max  int // heartbeats in ten minutes
	}{
		{"a Core that answers at once", nil, 59, 61},
		{"a Core that holds them", hold, 23, 25},
		{"a Core that is away", fails(errors.New("no route")), 10, 15},
		{"a Core that rejects the key", fails(status(401)), 9, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := openStore(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, db)
				n.core.heartbeat = c.heartbeat
				n.during(t, 10*time.Minute)
				if got := len(n.core.heartbeats); got < c.min || got > c.max {
					t.Errorf("%d heartbeats, want %d to %d", got, c.min, c.max)
				}
			})
		})
	}
}

// While Core does not answer, the waits between heartbeats double up to a minute. They begin
// anew once it has answered.
func TestHeartbeatWaitsDouble(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		count := 0
		n.core.heartbeat = func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
			if count++; count == 6 {
				return wire.HeartbeatResponse{OK: true}, nil
			}
			return wire.HeartbeatResponse{}, errors.New("no route")
		}
		n.during(t, 5*time.Minute)
		var waits []time.Duration
		for i, at := range n.core.heartbeats[1:] {
			waits = append(waits, at.Sub(n.core.heartbeats[i])/time.Second)
		}
		if want := []time.Duration{10, 20, 40, 60, 60, 10, 10, 20, 40}; !slices.Equal(waits, want) {
			t.Errorf("waits between heartbeats of %d seconds, want %d", waits, want)
		}
	})
}

// A configuration that could not be applied is tried again after waits that double up to ten
// minutes. Another configuration begins with the first wait.
func TestRefusedWaitsDouble(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		var tries []time.Time
		n.engine.fail = func(state.State) error {
			tries = append(tries, time.Now())
			return fault.PortTaken("vless-7", 443, "taken")
		}
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 4, 443), `"4"`, behind(4)
		time.AfterFunc(40*time.Minute+5*time.Second, func() {
			n.core.mu.Lock()
			defer n.core.mu.Unlock()
			n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 5, 444), `"5"`, behind(5)
		})
		n.during(t, 43*time.Minute)
		// A try comes with the first heartbeat after its wait, one every ten seconds, the second one after tellHeld.
		var waits []time.Duration
		for i, at := range tries[1:] {
			waits = append(waits, at.Sub(tries[i])/time.Second)
		}
		want := []time.Duration{21, 30, 60, 120, 240, 480, 600, 600, 260, 21, 30, 60}
		if !slices.Equal(waits, want) {
			t.Errorf("waits between tries of %d seconds, want %d", waits, want)
		}
	})
}

// behind answers as a Core that wants a revision.
func behind(want int64) func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
	return func(_ context.Context, r wire.HeartbeatRequest, _ time.Duration) (wire.HeartbeatResponse, error) {
		return wire.HeartbeatResponse{OK: true, NeedSync: r.Revision == nil || *r.Revision != want}, nil
	}
}

func TestConfigurationIsAppliedKeptAndReported(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
		n.during(t, time.Minute)
		if len(n.engine.applied) != 1 {
			t.Fatalf("applied %d times", len(n.engine.applied))
		}
		if last := n.core.revisions[len(n.core.revisions)-1]; last == nil || *last != 3 {
			t.Errorf("the last heartbeat told revision %v", last)
		}
		if posts := n.core.posted(wire.PathApplied); len(posts) != 1 || posts[0].body != `{"revision":3}` {
			t.Errorf("applied reports %v", posts)
		}
		history, err := db.History()
		if err != nil || history.Current == nil || history.Current.Revision != 3 || history.Current.ETag != `"3"` {
			t.Errorf("kept %+v, %v", history.Current, err)
		}
		// The next start serves it without Core.
		again := newNode(t, db)
		again.core.heartbeat = func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
			return wire.HeartbeatResponse{}, errors.New("no route")
		}
		again.during(t, time.Second)
		if len(again.engine.restored) != 1 || again.engine.restored[0].Clients() != 1 {
			t.Errorf("restored %+v", again.engine.restored)
		}
	})
}

// A refused configuration is told once, is not kept, and is tried again only
// where that can help.
func TestRefusedConfiguration(t *testing.T) {
	taken := fault.PortTaken("vless-7", 443, "taken")
	wrong := fault.InText("vless-7", "wrong")
	for _, c := range []struct {
		name     string
		config   func(*testing.T) []byte
		fail     error
		code     string
		min, max int // tries in an hour
	}{
		{"a taken port", func(t *testing.T) []byte { return nodeConfig(t, 4, 443) }, taken, wire.CodePortInUse, 6, 14},
		{"an invalid one", func(t *testing.T) []byte { return nodeConfig(t, 4, 443) }, wrong, wire.CodeConfigInvalid, 1, 1},
		{"an object that is not Core's", func(*testing.T) []byte { return []byte(`{}`) }, nil, wire.CodeConfigInvalid, 0, 0},
		{"null", func(*testing.T) []byte { return []byte(`null`) }, nil, wire.CodeConfigInvalid, 0, 0},
		{"one that can't be read", func(*testing.T) []byte { return []byte(`{"revision":4,"services":{"xray":{"x":1}}}`) }, nil, wire.CodeConfigInvalid, 0, 0},
		{"no JSON", func(*testing.T) []byte { return []byte(`<html>`) }, nil, wire.CodeConfigInvalid, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := openStore(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, db)
				tries := 0
				n.engine.fail = func(state.State) error { tries++; return c.fail }
				n.core.config, n.core.etag, n.core.heartbeat = c.config(t), `"4"`, behind(4)
				n.during(t, time.Hour)
				if tries < c.min || tries > c.max {
					t.Errorf("%d tries in an hour, want %d to %d", tries, c.min, c.max)
				}
				if revision := kept(t, db); revision != 0 {
					t.Errorf("revision %d was kept", revision)
				}
				reports := n.core.posted(wire.PathError)
				if len(reports) == 0 || len(reports) > 6 {
					t.Fatalf("%d reports in an hour, want 1 to 6", len(reports))
				}
				var body wire.ErrorRequest
				if err := json.Unmarshal([]byte(reports[0].body), &body); err != nil || body.Code != c.code {
					t.Errorf("report %s, want code %s", reports[0].body, c.code)
				}
				if hour := len(n.core.heartbeats); hour > 370 {
					t.Errorf("%d heartbeats in an hour", hour)
				}
			})
		})
	}
}

// A Core that asks for a sync to what runs, and sends no ETag, is not asked in a
// circle.
func TestNoHotLoop(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config = nodeConfig(t, 3, 443)
		n.core.heartbeat = func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
			return wire.HeartbeatResponse{OK: true, NeedSync: true}, nil
		}
		n.during(t, 10*time.Minute)
		if len(n.engine.applied) != 1 || n.core.fetches > 62 || len(n.core.posted(wire.PathApplied)) > 11 {
			t.Errorf("in ten minutes: %d applies, %d fetches, %d reports", len(n.engine.applied), n.core.fetches, len(n.core.posted(wire.PathApplied)))
		}
	})
}

// Traffic of a client ends in Core's rows at the minute's end, attributed by
// the client map.
func TestTrafficReachesCore(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		slot := n.engine.applied[0].Inbounds["vless-7"].Clients[0].Slot
		n.counters.add(slot, 100, 200)
		time.Sleep(time.Minute)
		synctest.Wait()
		posts := n.core.posted(wire.PathUsage)
		if len(posts) != 1 || !strings.Contains(posts[0].body, `"userId":5,"subscriptionId":6,"nodeProtocolId":7,"bytesUp":100,"bytesDown":200,"recordedAt":"2000-01-01T00:00:00Z"`) {
			t.Errorf("usage %+v", posts)
		}
		n.counters.add(slot, 1, 2)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if posts := n.core.posted(wire.PathUsage); len(posts) != 2 || !strings.Contains(posts[1].body, `"bytesUp":1,"bytesDown":2`) {
			t.Errorf("the last bytes were not delivered: %+v", posts)
		}
	})
}

func TestDelivery(t *testing.T) {
	usage := func(t *testing.T, db *store.Store) {
		t.Helper()
		var owners []store.Owner
		for _, key := range []string{"a", "b", "c"} {
			owners = append(owners, store.Owner{Engine: store.EngineXray, Tag: "in", Key: key, Attribution: &store.Attribution{UserID: int64(key[0]), NodeProtocolID: 1}})
		}
		if _, err := db.Assign(owners); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		post  func(try int, body []byte) error
		posts int // of usage within two hours
		aside int
		left  int
	}{
		{"taken at once", func(int, []byte) error { return nil }, 1, 0, 0},
		{"away for a while", func(try int, _ []byte) error {
			if try < 4 {
				return errors.New("no route")
			}
			return nil
		}, 4, 0, 0},
		{"refused for good", func(int, []byte) error { return status(400) }, 1, 1, 0},
		{"too large", func(_ int, body []byte) error {
			if strings.Count(string(body), "userId") > 1 {
				return status(413)
			}
			return nil
		}, 5, 0, 0},
		{"no such route", func(int, []byte) error { return status(404) }, 13, 0, 1},
		{"the key is rejected", func(int, []byte) error { return status(401) }, 121, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := openStore(t)
			usage(t, db)
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, db)
				for slot := range uint32(3) {
					n.counters.add(slot, 10, 10)
				}
				try := 0
				n.core.post = func(path string, body []byte) error {
					if path != wire.PathUsage {
						return nil
					}
					try++
					return c.post(try, body)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				// Without an engine's configuration the slots would be given
				// back: boot accounts them, and the courier runs alone.
				n.boot()
				go n.syncLoop(ctx)
				n.courier.Run(ctx)
				synctest.Wait()
				waiting, err := db.Waiting()
				if err != nil {
					t.Fatal(err)
				}
				if got := len(n.core.posted(wire.PathUsage)); got > c.posts {
					t.Errorf("%d posts, want at most %d", got, c.posts)
				}
				if waiting.Aside != c.aside || waiting.Batches[store.KindUsage] != c.left {
					t.Errorf("waiting %+v, want %d aside and %d left", waiting, c.aside, c.left)
				}
			})
		})
	}
}

// Core is away for half a day and comes back: what is fresh does not wait behind
// the backlog, and Core is not hammered.
func TestBacklog(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.config.CollectInterval = time.Minute
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
		away := true
		n.core.post = func(path string, _ []byte) error {
			if away && path == wire.PathUsage {
				return errors.New("no route")
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		slot := n.engine.applied[0].Inbounds["vless-7"].Clients[0].Slot
		const (
			minutes      = 12 * 60
			backlogPause = 50 * time.Millisecond // between two batches of a backlog
		)
		for range minutes {
			n.counters.add(slot, 1, 1)
			time.Sleep(time.Minute)
		}
		n.core.mu.Lock()
		away, n.core.posts = false, nil
		n.core.mu.Unlock()
		back := time.Now()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		posts := n.core.posted(wire.PathUsage)
		if len(posts) != minutes {
			t.Fatalf("%d rows came, want %d", len(posts), minutes)
		}
		newest, last := "", time.Time{}
		for _, p := range posts {
			if p.body > newest {
				newest, last = p.body, p.at
			}
		}
		if wait := last.Sub(posts[0].at); wait > 2*time.Second {
			t.Errorf("the newest row waited for %s behind the backlog", wait)
		}
		if took := posts[len(posts)-1].at.Sub(posts[0].at); took < minutes*backlogPause/2 {
			t.Errorf("%d batches in %s: that hammers Core", minutes, took)
		}
		if late := posts[0].at.Sub(back); late > 70*time.Second {
			t.Errorf("the first row came %s after Core was back", late)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A clock that is off is told, once in ten minutes.
// A clock that is off is reported once, whatever revisions come, until it is right again.
func TestClockSkewIsReported(t *testing.T) {
	for skew, words := range map[time.Duration]string{
		0: "", 59 * time.Second: "", -59 * time.Second: "",
		-3 * time.Minute: "about 3m0s behind Core's", 2 * time.Minute: "about 2m0s ahead of Core's",
	} {
		t.Run(skew.String(), func(t *testing.T) {
			db := openStore(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, db)
				n.core.skew = skew
				revision := int64(0)
				every := time.NewTicker(time.Minute)
				defer every.Stop()
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					for range 30 {
						<-every.C
						n.core.mu.Lock()
						revision++
						n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, revision, 443), fmt.Sprint(revision), behind(revision)
						n.core.mu.Unlock()
					}
				}()
				n.during(t, 31*time.Minute)
				<-ended
				reports := n.core.posted(wire.PathError)
				switch {
				case words == "" && len(reports) > 0:
					t.Fatalf("%d reports of a clock that is right, first %s", len(reports), reports[0].body)
				case words == "":
				case len(reports) != 1:
					t.Fatalf("%d reports in 31 minutes, want one", len(reports))
				case !strings.Contains(reports[0].body, wire.CodeClockSkew) || !strings.Contains(reports[0].body, words):
					t.Errorf("report %s, want %q in it", reports[0].body, words)
				}
			})
		})
	}
}

// A clock that was set right and is wrong again is reported again.
func TestClockSkewComesBack(t *testing.T) {
	db := openStore(t)
	n := newNode(t, db)
	for _, skew := range []time.Duration{time.Hour, time.Hour, time.Second, -time.Hour} {
		n.checkClock(skew, nil)
	}
	n.checkClock(0, errors.New("no answer: this skew means nothing"))
	if _, off := n.troubles.has(troubleClock); !off {
		t.Error("a heartbeat without an answer set the clock right")
	}
	if err := n.reporter.Write(); err != nil {
		t.Fatal(err)
	}
	if waiting, err := db.Waiting(); err != nil || waiting.Batches[store.KindReports] != 2 {
		t.Errorf("%d reports, want two (%v)", waiting.Batches[store.KindReports], err)
	}
}

// withMTProto adds an MTProto inbound with alice to a configuration.
func withMTProto(config []byte) []byte {
	return []byte(strings.Replace(string(config), `"services":{`,
		`"services":{"mtproto":{"inbounds":[{"nodeProtocolId":9,"tag":"mtproto-9","port":8443,"modes":{"tls":true},
		"clients":[{"id":"`+aliceID+`","secret":"0123456789abcdef0123456789abcdef"}]}]},`, 1))
}

// MTProto inbounds are applied with the rest, and their clients' bytes reach
// Core as Xray's do.
func TestMTProtoReachesCore(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = withMTProto(nodeConfig(t, 3, 443)), `"3"`, behind(3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		slot := n.mtproto.applied[0].Inbounds[0].Clients[0].Slot
		if slot == n.engine.applied[0].Inbounds["vless-7"].Clients[0].Slot {
			t.Error("alice has one slot on two inbounds")
		}
		n.counters.add(slot, 100, 200)
		n.inbox.MTProtoPresence(telemt.Presence{Slot: slot, Online: true, At: time.Now()})
		time.Sleep(time.Minute)
		synctest.Wait()
		posts := n.core.posted(wire.PathUsage)
		if len(posts) != 1 || !strings.Contains(posts[0].body, `"userId":5,"subscriptionId":6,"nodeProtocolId":9,"bytesUp":100,"bytesDown":200`) {
			t.Errorf("usage %+v", posts)
		}
		events := n.core.posted(wire.PathSessionEvents)
		if len(events) != 1 || !strings.Contains(events[0].body, `"protocol":"mtproto","eventType":"online"`) {
			t.Errorf("events %+v", events)
		}
		if n.mtproto.collects < 12 {
			t.Errorf("the counters of MTProto were read %d times in a minute", n.mtproto.collects)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		again := newNode(t, db)
		again.during(t, time.Second)
		if len(again.mtproto.restored) != 1 || len(again.mtproto.restored[0].Inbounds) != 1 {
			t.Errorf("restored %+v", again.mtproto.restored)
		}
	})
}

// An inbound that telemt refuses takes Xray's part of the revision back too. One that telemt only
// can't serve now is reported, and holds nothing up.
func TestMTProtoFailures(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(4)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(5 * time.Second)
		n.mtproto.mu.Lock()
		n.mtproto.fail = &service.ApplyError{Code: service.FailureApply, Tag: "mtproto-9", Port: 8443, Message: "telemt refuses: words"}
		n.mtproto.mu.Unlock()
		n.core.mu.Lock()
		n.core.config, n.core.etag = withMTProto(nodeConfig(t, 4, 444)), `"4"`
		n.core.mu.Unlock()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		states := n.engine.applied
		if len(states) < 3 || !strings.Contains(string(states[1].Inbounds["vless-7"].Config), "444") || !strings.Contains(string(states[len(states)-1].Inbounds["vless-7"].Config), "443") {
			t.Errorf("Xray was not taken back: %d states", len(states))
		}
		reports := n.core.posted(wire.PathError)
		if len(reports) != 1 || !strings.Contains(reports[0].body, wire.CodeTelemtApplyFailed) || !strings.Contains(reports[0].body, "words") || !strings.Contains(reports[0].body, `"port":8443`) {
			t.Errorf("reports %v", reports)
		}
		if revision := kept(t, db); revision != 3 {
			t.Errorf("revision %d is kept", revision)
		}
		n.inbox.MTProtoFailed(service.Failure{Code: service.FailureMissing, Tag: "mtproto-9", Message: "no telemt"})
		time.Sleep(time.Second)
		synctest.Wait()
		if reports := n.core.posted(wire.PathError); len(reports) != 2 || !strings.Contains(reports[1].body, wire.CodeTelemtMissing) {
			t.Errorf("reports %v", reports)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The engine that lets go of a port comes before the one that takes it.
func TestPortMovesBetweenEngines(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		var order []string
		n.mtproto.applying = func() { order = append(order, "mtproto") }
		n.engine.fail = func(state.State) error { order = append(order, "xray"); return nil }
		apply := func(body []byte) {
			if err := n.apply(t.Context(), body, ""); err != nil {
				t.Fatal(err)
			}
		}
		apply(withMTProto(nodeConfig(t, 1, 443))) // MTProto on 8443
		apply(nodeConfig(t, 2, 8443))
		if got := strings.Join(order, " "); got != "xray mtproto mtproto xray" {
			t.Errorf("applied in the order %s", got)
		}
	})
}

// A configuration under which the worker crashes three times in a row is rolled
// back to the one before, told, and not tried again; another one is.
func TestCrashingConfigurationIsRolledBack(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(4)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(2 * time.Minute)
		n.core.mu.Lock()
		n.core.config, n.core.etag = nodeConfig(t, 4, 444), `"4"`
		n.core.mu.Unlock()
		time.Sleep(time.Minute)
		crash := xray.Failure{Crash: true, Suspect: true, Fault: fault.OnHost("", "panic: words")}
		n.inbox.XrayFailed(crash)
		n.inbox.XrayFailed(xray.Failure{Crash: true, Fault: fault.OnHost("", "killed from outside")})
		n.inbox.XrayFailed(xray.Failure{Crash: true, Fault: fault.OnHost("", "killed from outside")})
		time.Sleep(time.Second)
		synctest.Wait()
		if revision := kept(t, db); revision != 4 {
			t.Fatal("it was rolled back though the worker was killed from outside")
		}
		n.inbox.XrayFailed(crash)
		n.inbox.XrayFailed(crash)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		last := n.engine.restored[len(n.engine.restored)-1]
		if revision := kept(t, db); revision != 3 || !strings.Contains(string(last.Inbounds["vless-7"].Config), "443") {
			t.Errorf("revision %d is kept, %s runs", revision, last.Inbounds["vless-7"].Config)
		}
		told := false
		for _, r := range n.core.posted(wire.PathError) {
			told = told || strings.Contains(r.body, wire.CodeXrayCrashed) && strings.Contains(r.body, "revision 3 runs again")
		}
		if !told {
			t.Errorf("Core was not told: %v", n.core.posted(wire.PathError))
		}
		if r := n.core.revisions[len(n.core.revisions)-1]; r == nil || *r != 3 {
			t.Errorf("the last heartbeat told revision %v", r)
		}
		n.core.mu.Lock()
		n.core.config, n.core.etag = nodeConfig(t, 5, 445), `"5"`
		n.core.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if revision := kept(t, db); revision != 5 {
			t.Errorf("the next revision was not applied: %d", revision)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
