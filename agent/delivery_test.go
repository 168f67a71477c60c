package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/xray"
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
		n.reporter.failed(wire.CodeClockSkew, "before all else", nil)
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

// troubled is an outbox whose calls fail as a test says.
type troubled struct {
	outbox
	mu     sync.Mutex
	report func() error
	done   func() error
}

func (o *troubled) Report(now time.Time, path string, body any) error {
	if o.report != nil {
		if err := o.report(); err != nil {
			return err
		}
	}
	return o.outbox.Report(now, path, body)
}

func (o *troubled) Done(b store.Batch) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done != nil {
		if err := o.done(); err != nil {
			return err
		}
	}
	return o.outbox.Done(b)
}

// A disk that does not answer holds up no engine that tells of a failure, and what it
// told is not lost on a disk that is full for a while.
func TestReportsOutliveTheDisksTrouble(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		stuck, full := make(chan struct{}), 5
		n.reporter.outbox = &troubled{outbox: db, report: func() error {
			<-stuck
			if full--; full >= 0 {
				return errors.New("no space left on device")
			}
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		for i := range 2 * maxReports {
			n.XrayFailed(xray.Failure{Message: fmt.Sprint("failure ", i)}) // returns
		}
		time.Sleep(time.Second)
		close(stuck)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		posts := n.core.posted(wire.PathError)
		if len(posts) != maxReports || !strings.Contains(posts[len(posts)-1].body, fmt.Sprint("failure ", 2*maxReports-1)) {
			t.Errorf("%d errors reached Core, want the last %d", len(posts), maxReports)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What Core has taken is not sent again while it can't be removed from the disk: a Core
// without idempotency would bill it again and again.
func TestAcknowledgedIsNotSentAgain(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		core, left := &fakeCore{}, 10
		o := &troubled{outbox: db, done: func() error {
			if left--; left >= 0 {
				return errors.New("input/output error")
			}
			return nil
		}}
		c := newCourier(core, o, newLink(), func(d time.Duration) time.Duration { return d }, slog.New(slog.DiscardHandler))
		if err := db.Report(time.Now(), wire.PathApplied, wire.AppliedRequest{Revision: 1}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		c.run(ctx)
		if posts := core.posted(wire.PathApplied); len(posts) != 1 {
			t.Errorf("sent %d times, want once", len(posts))
		}
		if waiting, err := db.Waiting(); err != nil || waiting.Batches[store.KindReports] != 0 || left != -1 {
			t.Errorf("waiting %+v, %v; %d tries to remove were left", waiting, err, left)
		}
	})
}

// A node that was registered anew says no revision until Core has given one: a rebuilt
// Core counts from one again.
func TestRegisteredAnewAsksForAConfiguration(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		if err := db.Commit(time.Now(), nil, store.Config{Revision: 57, Body: nodeConfig(t, 57, 443), Unconfirmed: true}, nil); err != nil {
			t.Fatal(err)
		}
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 444), `"3"`, behind(3)
		n.during(t, time.Minute)
		if len(n.engine.restored) != 1 || n.core.revisions[0] != nil {
			t.Errorf("restored %d times, the first heartbeat told revision %v", len(n.engine.restored), n.core.revisions[0])
		}
		if config, _, err := db.Config(); err != nil || config.Revision != 3 || config.Unconfirmed {
			t.Errorf("kept %+v, %v", config, err)
		}
	})
}

// Two batches that Core has taken and that can't be removed are each sent once.
func TestSeveralAcknowledged(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		core, left := &fakeCore{}, 10
		o := &troubled{outbox: db, done: func() error {
			if left--; left >= 0 {
				return errors.New("no space left on device")
			}
			return nil
		}}
		for _, at := range []time.Time{time.Now().Add(-time.Hour), time.Now()} {
			event := store.SessionEvent{Visitor: store.Visitor{Slot: 1}, Event: wire.SessionEvent{UserID: 1, EventType: wire.Online, OccurredAt: at}}
			if err := db.Sessions(at, []store.SessionEvent{event}); err != nil {
				t.Fatal(err)
			}
		}
		c := newCourier(core, o, newLink(), func(d time.Duration) time.Duration { return d }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		c.run(ctx)
		if posts := core.posted(wire.PathSessionEvents); len(posts) != 2 || left >= 0 {
			t.Errorf("sent %d times, want two batches once each (%d tries to remove were left)", len(posts), left)
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
		n.reporter.failed(wire.CodeClockSkew, "while it is away", nil)
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
