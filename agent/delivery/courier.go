package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
	"nodeagent/store"
)

const (
	courierMin  = time.Second
	courierMax  = time.Minute
	missingWait = 10 * time.Minute // for a route that this Core lacks
	// missingReportWait is so long for a report's route.
	missingReportWait = 30 * time.Second
	// freshFor is how long a batch counts as fresh; an older one is backlog,
	// which is sent at most twenty batches a second.
	freshFor     = 5 * time.Minute
	backlogPause = 50 * time.Millisecond
)

// courier delivers the outbox, each kind in its order and by its own goroutine,
// so that a route that fails holds up no other.
type Courier struct {
	deps  Deps
	lanes map[store.Kind]*lane
}

// lane is one kind's way to Core.
type lane struct {
	kind store.Kind
	wake chan struct{} // of one slot
	// retry is a fresh batch whose delivery failed: it is tried again before another
	// fresh one is. What was tried is not merged any more while Core is away.
	retry *store.Batch
	// acknowledged are the keys of batches that Core has taken and that could not be
	// removed yet: they are not sent again.
	acknowledged map[string]bool
	// missing are the reports' routes that Core had not, and since when.
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

var paths = map[store.Kind]string{
	store.KindUsage:    wire.PathUsage,
	store.KindOutbound: wire.PathOutboundUsage,
	store.KindEvents:   wire.PathSessionEvents,
}

func (c *Courier) Wake() {
	for _, l := range c.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (c *Courier) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for _, l := range c.lanes {
		loops.Go(func() { c.loop(ctx, l) })
	}
	loops.Wait()
}

func (c *Courier) loop(ctx context.Context, l *lane) {
	failures := 0
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-c.deps.Link.accepted(): // waits while Core does not take the key
		}
		more, err := c.deliverOne(ctx, l, turn)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			if !wait.For(ctx, c.pause(l.kind, err, failures)) {
				return
			}
		case more:
			failures = 0
		default:
			failures = 0
			select {
			case <-ctx.Done():
				return
			case <-l.wake:
			}
		}
	}
}

func (c *Courier) pause(kind store.Kind, err error, failures int) time.Duration {
	pause := min(courierMin<<min(failures-1, 10), courierMax)
	switch coreclient.ClassOf(err) {
	case coreclient.Missing:
		pause = missingWait
		if kind == store.KindReports { // others wait behind it
			pause = missingReportWait
		}
	case coreclient.Rejected:
		pause = RejectedWait
	case coreclient.Unreachable, coreclient.TooLarge, coreclient.Refused:
	}
	pause = max(c.deps.Jitter(pause), coreclient.RetryAfter(err))
	c.deps.Log.Warn("deliver", logkey.Kind, kind, logkey.Error, err, logkey.Failures, failures, logkey.NextIn, pause)
	return pause
}

// pick returns the batch to send: the oldest, but in a backlog every second one
// is the oldest of the fresh ones, so that a month's backlog starves nobody.
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
	l.retry = &younger // until it is delivered
	return younger, true, true, nil
}

// deliverOne sends one batch of the lane. more tells that there was one.
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
			// The other reports come behind it, and the words are in the log.
			c.deps.Log.Warn("this Core lacks a report's route; the report is dropped", logkey.Path, batch.Path)
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

// routeMissing tells whether Core really has no route for such reports: Core has answered a
// heartbeat since it was first missed. Something between may answer 404 for a while.
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

func (c *Courier) setAside(batch store.Batch, reason error) error {
	if err := c.deps.Outbox.SetAside(time.Now(), batch, reason.Error()); err != nil {
		return fmt.Errorf("set aside: %w", err)
	}
	c.deps.Log.Error("Core refused a batch for good; it is kept aside", logkey.Kind, batch.Kind, logkey.Rows, batch.Rows, logkey.Error, reason)
	if batch.Kind != store.KindReports { // a report on a report would never end
		c.deps.Refused(batch, reason)
	}
	return nil
}

// drain delivers what waits until nothing does, something fails, or ctx ends.
func (c *Courier) Drain(ctx context.Context) {
	if _, rejected := c.deps.Link.State(); rejected != nil {
		return
	}
	var kinds sync.WaitGroup
	for _, l := range c.lanes {
		kinds.Go(func() {
			for ctx.Err() == nil {
				if more, err := c.deliverOne(ctx, l, 0); err != nil || !more {
					return
				}
			}
		})
	}
	kinds.Wait()
}
