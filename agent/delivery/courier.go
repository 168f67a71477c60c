package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
	"nodeagent/store"
)

const (
	// retryMin and retryMax bound the pause after a failure, which doubles with each one.
	retryMin = time.Second
	retryMax = time.Minute
	// missingWait is the pause after a 404: this Core has no such route.
	missingWait = 10 * time.Minute
	// missingReportWait is the same for the routes of reports.
	missingReportWait = 30 * time.Second
	// freshFor is the age up to which a batch is fresh. An older one is backlog.
	freshFor = 5 * time.Minute
	// backlogPause is the pause between two batches of one kind while there is a backlog.
	backlogPause = 50 * time.Millisecond
)

// Courier sends the batches of the outbox to Core.
//
// Each kind of batch has a lane, and each lane a goroutine of Run: a route that fails delays
// no other kind. Within a lane one batch is sent at a time, the oldest first. Where there is
// a backlog, every second batch is a fresh one, so that current traffic does not wait behind
// a month of old traffic; and at most twenty batches a second are sent.
//
// A batch stays in the outbox until Core acknowledged it, and has the same Idempotency-Key
// at each try, also after a crash. What happens to a batch:
//
//	2xx, acknowledged         removed
//	413                       split in two, or set aside if it has one row
//	401, 403                  kept; next try in a minute, if the Link is open
//	404, 405                  kept; next try in ten minutes; a report: see routeMissing
//	407, 408, 429, 5xx        kept; next try in a second, then two, up to a minute
//	no answer, none of Core's the same; see coreclient.NotAcknowledged
//	other 4xx                 set aside for an operator, and reported
//
// Core's Retry-After makes a pause longer, never shorter.
//
// A batch that was sent once must not change: Core may have taken it. The store keeps it as
// it is from then on. While Core is away, only two batches of a lane are sent, the oldest
// and the oldest fresh one, so that the store can merge all others.
type Courier struct {
	deps  Deps
	lanes map[store.Kind]*lane
}

// lane delivers one kind of batch. Its goroutine owns everything but wake, until Run has
// ended; then Drain's goroutine does.
type lane struct {
	kind store.Kind
	wake chan struct{} // one slot; a batch may be in the outbox
	// retry is the fresh batch that is sent during a backlog, until it is delivered.
	retry *store.Batch
	// acknowledged has the keys of batches that Core took, and that could not be removed
	// from the outbox yet. They are not sent again.
	acknowledged map[string]bool
	// missing has the routes of reports that Core answered with 404, and since when.
	missing map[string]time.Time
}

// NewCourier makes a courier that sends nothing yet.
func NewCourier(deps Deps) *Courier {
	c := &Courier{deps: deps, lanes: map[store.Kind]*lane{}}
	for _, kind := range store.Kinds {
		c.lanes[kind] = &lane{kind: kind, wake: make(chan struct{}, 1), acknowledged: map[string]bool{}, missing: map[string]time.Time{}}
	}
	return c
}

// paths are the routes of the kinds whose batches do not name one.
var paths = map[store.Kind]string{
	store.KindUsage:    wire.PathUsage,
	store.KindOutbound: wire.PathOutboundUsage,
	store.KindEvents:   wire.PathSessionEvents,
}

// Wake tells the courier that there may be batches in the outbox. It returns at once.
func (c *Courier) Wake() {
	for _, l := range c.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Run delivers until ctx ends.
func (c *Courier) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for _, l := range c.lanes {
		loops.Go(func() { c.loop(ctx, l) })
	}
	loops.Wait()
}

// loop delivers one lane until ctx ends.
func (c *Courier) loop(ctx context.Context, l *lane) {
	failures, waits := 0, wait.Doubling(retryMin, retryMax)
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-c.deps.Link.accepted(): // waits while Core does not accept the key
		}
		more, err := c.deliverOne(ctx, l, turn)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			if !wait.For(ctx, c.pause(l.kind, err, failures, waits.NextBackOff())) {
				return
			}
		case more:
			failures = 0
			waits.Reset()
		default:
			failures = 0
			waits.Reset()
			select {
			case <-ctx.Done():
				return
			case <-l.wake:
			}
		}
	}
}

// pause returns how long to wait after a failure: pause, or as long as the error asks for.
func (c *Courier) pause(kind store.Kind, err error, failures int, pause time.Duration) time.Duration {
	switch coreclient.ClassOf(err) {
	case coreclient.Missing:
		pause = missingWait
		if kind == store.KindReports { // reports for other routes wait behind this one
			pause = missingReportWait
		}
	case coreclient.Rejected:
		pause = RejectedWait
	case coreclient.Unreachable, coreclient.TooLarge, coreclient.Refused:
	}
	pause = max(c.deps.Jitter(pause), coreclient.RetryAfter(err))
	c.deps.Log.Warn("deliver a batch; trying again", logkey.Kind, kind, logkey.Error, err, logkey.Failures, failures, logkey.NextIn, pause)
	return pause
}

// pick returns the batch to send next. That is the oldest one, and at every second turn of a
// backlog the oldest fresh one. backlog tells that the oldest one is not fresh.
func (c *Courier) pick(l *lane, turn int) (batch store.Batch, backlog, found bool, err error) {
	batch, found, err = c.deps.Outbox.Next(l.kind)
	if err != nil || !found {
		return batch, false, found, err
	}
	fresh := time.Now().Add(-freshFor)
	if backlog = batch.CreatedAt.Before(fresh); !backlog || turn%2 == 0 || l.kind == store.KindReports {
		return batch, backlog, true, nil
	}
	if l.retry != nil {
		return *l.retry, true, true, nil
	}
	younger, found, err := c.deps.Outbox.NextSince(l.kind, fresh)
	if err != nil || !found {
		return batch, true, err == nil, err
	}
	l.retry = &younger
	return younger, true, true, nil
}

// deliverOne sends one batch of the lane, and does what Core's answer asks for. more is false
// where the lane is empty. An error means that the batch stays.
func (c *Courier) deliverOne(ctx context.Context, l *lane, turn int) (more bool, err error) {
	batch, backlog, found, err := c.pick(l, turn)
	if err != nil || !found {
		return false, err
	}
	defer func() {
		if l.retry != nil && l.retry.Key == batch.Key && (err == nil || errors.Is(err, store.ErrNoBatch)) {
			l.retry = nil
		}
	}()
	if backlog && turn > 0 && !wait.For(ctx, backlogPause) {
		return false, ctx.Err()
	}
	if !l.acknowledged[batch.Key] {
		path := batch.Path
		if path == "" {
			path = paths[l.kind]
		}
		err = c.deps.Core.Post(ctx, path, batch.Key, batch.Body)
		c.deps.Link.Answered(path, err)
	}
	if err == nil {
		l.acknowledged[batch.Key] = true
		delete(l.missing, batch.Path)
		c.deps.Log.Debug("delivered", logkey.Kind, l.kind, logkey.Rows, batch.Rows)
		if err = c.deps.Outbox.Done(batch); err == nil || errors.Is(err, store.ErrNoBatch) {
			delete(l.acknowledged, batch.Key)
		}
		return true, err
	}
	switch coreclient.ClassOf(err) {
	case coreclient.Missing:
		if c.routeMissing(l, batch) {
			// Other reports wait behind it, and the log has the same message.
			c.deps.Log.Warn("Core has no route for this report; it is dropped", logkey.Path, batch.Path)
			return true, c.deps.Outbox.Done(batch)
		}
	case coreclient.TooLarge:
		if batch.Rows > 1 {
			return true, c.deps.Outbox.Split(batch)
		}
		return true, c.setAside(batch, err)
	case coreclient.Refused:
		return true, c.setAside(batch, err)
	case coreclient.Unreachable, coreclient.Rejected:
	}
	return false, err
}

// routeMissing tells whether Core has no route for this report. A single 404 does not prove
// it, since a proxy may send it while Core is away. It is proved once Core has answered a
// heartbeat after the first 404.
func (c *Courier) routeMissing(l *lane, batch store.Batch) bool {
	if l.kind != store.KindReports {
		return false
	}
	since, missed := l.missing[batch.Path]
	if !missed {
		l.missing[batch.Path] = time.Now()
		return false
	}
	lastGood, _ := c.deps.Link.State()
	return lastGood.After(since)
}

// setAside moves a batch that Core refused for good out of the way of the others.
func (c *Courier) setAside(batch store.Batch, reason error) error {
	if err := c.deps.Outbox.SetAside(time.Now(), batch, reason.Error()); err != nil {
		return fmt.Errorf("set aside: %w", err)
	}
	c.deps.Log.Error("Core refused a batch for good; it is set aside", logkey.Kind, batch.Kind, logkey.Rows, batch.Rows, logkey.Error, reason)
	if batch.Kind != store.KindReports { // a report about a report could be refused too, and so on
		c.deps.Refused(batch, reason)
	}
	return nil
}

// Drain delivers each lane until it is empty, a delivery fails or takes longer than perBatch,
// or ctx ends. It tells whether every lane became empty. It is called when Run has returned.
func (c *Courier) Drain(ctx context.Context, perBatch time.Duration) (empty bool) {
	if _, rejected := c.deps.Link.State(); rejected != nil {
		return false
	}
	var kinds sync.WaitGroup
	var failed atomic.Bool
	for _, l := range c.lanes {
		kinds.Go(func() {
			for {
				batch, cancel := context.WithTimeout(ctx, perBatch)
				more, err := c.deliverOne(batch, l, 0)
				cancel()
				if err != nil {
					failed.Store(true)
				}
				if err != nil || !more {
					return
				}
			}
		})
	}
	kinds.Wait()
	return !failed.Load()
}
