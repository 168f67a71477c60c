package agent

import (
	"context"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
)

// collectLoop reads the counters at every multiple of the interval and at each full minute,
// so that the bytes of a minute end up in the rows of that minute.
func (a *Agent) collectLoop(ctx context.Context) {
	beat := a.pulse.Begin("", 0)
	defer beat.End()
	for {
		next := untilNext(time.Now(), a.live().CollectInterval)
		beat.Do("the wait for the next read of the counters", next+requestLimit)
		if !wait.For(ctx, next) {
			return
		}
		beat.Do("a read of the counters", requestLimit)
		a.collect(ctx)
	}
}

// untilNext returns the time until the next multiple of interval or the next full minute.
func untilNext(now time.Time, interval time.Duration) time.Duration {
	next := now.Truncate(interval).Add(interval)
	if minute := now.Truncate(time.Minute).Add(time.Minute); minute.Before(next) {
		next = minute
	}
	return next.Sub(now)
}

// readTimeout bounds how long one read waits for the counters of telemt processes. What a
// slow one counted is read the next time.
const readTimeout = time.Second

// collect accounts what was counted since the last read, and wakes the courier.
func (a *Agent) collect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	a.mtproto.Collect(ctx)
	cancel()
	err := a.store.Collect(time.Now(), a.counters)
	a.reportDamage()
	a.troubles.note(troubleAccount, err)
	if err != nil {
		// Nothing is lost: the counters keep their values.
		a.log.Error("account traffic; trying again at the next read", logkey.Error, err)
		a.reporter.Failed(wire.CodeStoreFailed, fmt.Sprintf("account traffic: %v", err), nil)
		return
	}
	a.courier.Wake()
	a.releaseClosed()
}

// compactEvery is how often old batches in the outbox are merged.
const compactEvery = 10 * time.Minute

// compactLoop keeps the outbox small while Core is away.
func (a *Agent) compactLoop(ctx context.Context) {
	for wait.For(ctx, compactEvery) {
		trimmed, err := a.store.Compact(time.Now())
		if err != nil {
			a.log.Error("merge old batches of the outbox; trying again", logkey.Error, err)
		}
		if trimmed != nil {
			a.log.Error("the outbox is full", logkey.UsedBytes, trimmed.UsedBytes, logkey.AsideDropped, trimmed.AsideDropped, logkey.EventsDropped, trimmed.EventsDropped)
			a.reporter.Failed(wire.CodeStoreFailed, "the outbox is full: usage was merged to days, and where that was not enough, the older half was dropped of the session events or of the batches that Core had refused, whichever takes more space",
				map[string]any{"usedBytes": trimmed.UsedBytes, "asideDropped": trimmed.AsideDropped, "eventsDropped": trimmed.EventsDropped})
		}
	}
}
