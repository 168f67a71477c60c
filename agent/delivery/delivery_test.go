package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// fakeCore takes every batch and keeps it.
type fakeCore struct {
	mu    sync.Mutex
	posts []fakePost
	fail  func() error // nil for a Core that takes everything
}

type fakePost struct {
	path, body string
	at         time.Time
}

func (c *fakeCore) Post(_ context.Context, path, _ string, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posts = append(c.posts, fakePost{path, string(body), time.Now()})
	if c.fail == nil {
		return nil
	}
	return c.fail()
}

func (c *fakeCore) posted(path string) []fakePost {
	c.mu.Lock()
	defer c.mu.Unlock()
	var some []fakePost
	for _, p := range c.posts {
		if p.path == path {
			some = append(some, p)
		}
	}
	return some
}

// openStore is called outside the bubbles of synctest: its file lock waits in
// real time.
func openStore(t *testing.T) *store.Store {
	t.Helper()
	db, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func newTestCourier(core Core, outbox Outbox) *Courier {
	return NewCourier(Deps{
		Log: slog.New(slog.DiscardHandler), Core: core, Outbox: outbox, Link: NewLink(),
		Jitter:  func(d time.Duration) time.Duration { return d },
		Refused: func(store.Batch, error) {},
	})
}

// failingOutbox is an outbox whose calls fail as a test says.
type failingOutbox struct {
	*store.Store
	mu     sync.Mutex
	report func() error
	done   func() error
}

func (o *failingOutbox) Report(now time.Time, path string, body any) error {
	if o.report != nil {
		if err := o.report(); err != nil {
			return err
		}
	}
	return o.Store.Report(now, path, body)
}

func (o *failingOutbox) Done(b store.Batch) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done != nil {
		if err := o.done(); err != nil {
			return err
		}
	}
	return o.Store.Done(b)
}

// A disk that does not answer delays nobody who reports a failure, and what was
// reported is not lost on a disk that is full for a while.
func TestReportsOutliveTheDisksTrouble(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		core := &fakeCore{}
		stuck, full := make(chan struct{}), 5
		courier := newTestCourier(core, db)
		reporter := NewReporter(&failingOutbox{Store: db, report: func() error {
			<-stuck
			if full--; full >= 0 {
				return errors.New("no space left on device")
			}
			return nil
		}}, courier.Wake, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		loops.Go(func() { courier.Run(ctx) })
		loops.Go(func() { reporter.Run(ctx) })
		for i := range 2 * maxReports {
			reporter.Failed(wire.CodeXrayCrashed, fmt.Sprint("failure ", i), nil) // returns
		}
		time.Sleep(time.Second)
		close(stuck)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		posts := core.posted(wire.PathError)
		if len(posts) != maxReports || !strings.Contains(posts[len(posts)-1].body, fmt.Sprint("failure ", 2*maxReports-1)) {
			t.Errorf("%d errors reached Core, want the last %d", len(posts), maxReports)
		}
		cancel()
		loops.Wait()
	})
}

// A batch that Core has taken is not sent again while the batch can't be removed from the disk: a
// Core without idempotency would bill it again and again.
func TestAcknowledgedIsNotSentAgain(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		core, left := &fakeCore{}, 10
		o := &failingOutbox{Store: db, done: func() error {
			if left--; left >= 0 {
				return errors.New("input/output error")
			}
			return nil
		}}
		c := newTestCourier(core, o)
		if err := db.Report(time.Now(), wire.PathApplied, wire.AppliedRequest{Revision: 1}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		c.Run(ctx)
		if posts := core.posted(wire.PathApplied); len(posts) != 1 {
			t.Errorf("sent %d times, want once", len(posts))
		}
		if waiting, err := db.Waiting(); err != nil || waiting.Batches[store.KindReports] != 0 || left != -1 {
			t.Errorf("waiting %+v, %v; %d tries to remove were left", waiting, err, left)
		}
	})
}

// While Core does not answer, the waits between two tries double up to a minute. They begin
// anew after a batch that Core took.
func TestWaitsDouble(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		core, tries := &fakeCore{}, 0
		core.fail = func() error {
			if tries++; tries == 9 {
				return nil
			}
			return errors.New("no route")
		}
		for revision := range int64(2) {
			if err := db.Report(time.Now(), wire.PathApplied, wire.AppliedRequest{Revision: revision}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 191*time.Second)
		defer cancel()
		newTestCourier(core, db).Run(ctx)
		var waits []time.Duration
		posts := core.posted(wire.PathApplied)
		for i, post := range posts[1:] {
			waits = append(waits, post.at.Sub(posts[i].at)/time.Second)
		}
		if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 0, 1, 2, 4}; !slices.Equal(waits, want) {
			t.Errorf("waits between tries of %d seconds, want %d", waits, want)
		}
	})
}

// Two batches that Core has taken and that can't be removed are each sent once.
func TestSeveralAcknowledged(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		core, left := &fakeCore{}, 10
		o := &failingOutbox{Store: db, done: func() error {
			if left--; left >= 0 {
				return errors.New("no space left on device")
			}
			return nil
		}}
		for _, at := range []time.Time{time.Now().Add(-time.Hour), time.Now()} {
			event := store.SessionEvent{SessionKey: store.SessionKey{Slot: 1}, Event: wire.SessionEvent{UserID: 1, EventType: wire.Online, OccurredAt: at}}
			if err := db.Sessions(at, []store.SessionEvent{event}); err != nil {
				t.Fatal(err)
			}
		}
		c := newTestCourier(core, o)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		c.Run(ctx)
		if posts := core.posted(wire.PathSessionEvents); len(posts) != 2 || left >= 0 {
			t.Errorf("sent %d times, want two batches once each (%d tries to remove were left)", len(posts), left)
		}
	})
}
