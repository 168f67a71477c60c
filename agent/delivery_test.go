package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// A Core that lacks the route for errors is told what runs all the same.
func TestMissingRouteHoldsUpNoReport(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.post = func(path string, _ []byte) error {
			if path == wire.PathError {
				return status(404)
			}
			return nil
		}
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
		n.reporter.Failed(wire.CodeClockSkew, "before all else", nil)
		n.during(t, time.Minute)
		if posts := n.core.posted(wire.PathApplied); len(posts) != 1 {
			t.Errorf("%d applied reports, want one", len(posts))
		}
		if waiting, err := db.Waiting(); err != nil || waiting.Batches[store.KindReports] != 0 {
			t.Errorf("waiting %+v, %v", waiting, err)
		}
	})
}

// While Core is away, what waits can be merged: but for two batches, which Core may
// have taken, nothing is tried.
func TestAwayLeavesBatchesToBeMerged(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
		n.during(t, time.Minute)
		n = newNode(t, db)
		n.core.heartbeat = func(context.Context, wire.HeartbeatRequest, time.Duration) (wire.HeartbeatResponse, error) {
			return wire.HeartbeatResponse{}, errors.New("no route")
		}
		n.core.post = func(string, []byte) error { return errors.New("no route") }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		for range 120 {
			n.counters.add(0, 10, 20)
			n.counters.add(1, 10, 20)
			time.Sleep(time.Minute)
		}
		if _, err := db.Compact(time.Now().Add(30 * 24 * time.Hour)); err != nil {
			t.Fatal(err)
		}
		// Those that were tried, and a day or two of the others.
		if waiting, err := db.Waiting(); err != nil || waiting.Batches[store.KindUsage] > 5 {
			t.Errorf("%d usage batches of two hours are left after a merge to days, want a handful (%v)", waiting.Batches[store.KindUsage], err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A node that was registered anew says no revision until Core has given one: a rebuilt
// Core counts from one again.
func TestRegisteredAnewAsksForAConfiguration(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		history := store.History{}.Applied(pack(t, 57, nodeConfig(t, 57, 443)), true).RegisteredAnew()
		if err := db.Commit(time.Now(), nil, history, nil); err != nil {
			t.Fatal(err)
		}
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 444), `"3"`, behind(3)
		n.during(t, time.Minute)
		if len(n.engine.restored) != 1 || n.core.revisions[0] != nil {
			t.Errorf("restored %d times, the first heartbeat told revision %v", len(n.engine.restored), n.core.revisions[0])
		}
		if history, err := db.History(); err != nil || history.Current.Revision != 3 || history.Unconfirmed {
			t.Errorf("kept %+v, %v", history, err)
		}
	})
}

// A 404 of something between, for a while, loses no report.
func TestPassing404LosesNothing(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		back := time.Now().Add(2 * time.Minute)
		n.core.config, n.core.etag = nodeConfig(t, 3, 443), `"3"`
		n.core.heartbeat = func(ctx context.Context, r wire.HeartbeatRequest, wait time.Duration) (wire.HeartbeatResponse, error) {
			if time.Now().Before(back) {
				return wire.HeartbeatResponse{}, status(404)
			}
			return behind(3)(ctx, r, wait)
		}
		n.core.post = func(string, []byte) error {
			if time.Now().Before(back) {
				return status(404)
			}
			return nil
		}
		n.reporter.Failed(wire.CodeClockSkew, "while it is away", nil)
		n.during(t, 20*time.Minute)
		if len(n.core.posted(wire.PathApplied)) == 0 {
			t.Error("what runs was not told")
		}
		told := false
		for _, p := range n.core.posted(wire.PathError) {
			told = told || !p.at.Before(back)
		}
		if !told {
			t.Error("the error was not told")
		}
	})
}

// A Core that gives no configuration is asked as rarely as it says, and heartbeats go
// on meanwhile.
func TestFetchWaitsAsCoreSays(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.heartbeat = behind(3)
		n.core.configError = &coreclient.Error{Route: "GET /", Status: 503, RetryAfter: 5 * time.Minute}
		n.during(t, 21*time.Minute)
		if n.core.fetches != 5 || len(n.core.heartbeats) < 120 {
			t.Errorf("%d fetches and %d heartbeats in 21 minutes, want 5 and one each 10 s", n.core.fetches, len(n.core.heartbeats))
		}
	})
}
