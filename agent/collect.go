package agent

import (
	"context"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
)

// collectLoop reads the counters at every multiple of the interval, so that
// one read falls on each minute's end.
func (a *Agent) collectLoop(ctx context.Context) {
	for wait.For(ctx, untilNext(time.Now(), a.config.CollectInterval)) {
		a.collect(ctx)
	}
}

func untilNext(now time.Time, interval time.Duration) time.Duration {
	next := now.Truncate(interval).Add(interval)
	if minute := now.Truncate(time.Minute).Add(time.Minute); minute.Before(next) {
		next = minute
	}
	return next.Sub(now)
}

// readTimeout bounds the wait for a telemt that does not tell its counters: what
// it has is read the next time.
const readTimeout = time.Second

func (a *Agent) collect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	a.mtproto.Collect(ctx)
	cancel()
	if err := a.store.Collect(time.Now(), a.counters); err != nil {
		// Nothing is lost: the counters keep what they have.
		a.log.Error("account traffic; trying again with the next read", logkey.Error, err)
		a.reporter.Failed(wire.CodeStoreFailed, fmt.Sprintf("account traffic: %v", err), nil)
		return
	}
	a.courier.Wake()
	a.releaseClosed()
}

// compactEvery is how often what waits long is merged.
const compactEvery = 10 * time.Minute

// compactLoop keeps the outbox small while Core is away.
func (a *Agent) compactLoop(ctx context.Context) {
	for wait.For(ctx, compactEvery) {
		trimmed, err := a.store.Compact(time.Now())
		if err != nil {
			a.log.Error("merge what waits long; trying again", logkey.Error, err)
		}
		if trimmed != nil {
			a.log.Error("the outbox has reached its bound", logkey.UsedBytes, trimmed.UsedBytes, logkey.AsideDropped, trimmed.AsideDropped, logkey.EventsDropped, trimmed.EventsDropped)
			a.reporter.Failed(wire.CodeStoreFailed, "the outbox has reached its bound: usage is merged to days, and of session events and what Core had refused for good the older half of the larger is dropped where that is not enough",
				map[string]any{"usedBytes": trimmed.UsedBytes, "asideDropped": trimmed.AsideDropped, "eventsDropped": trimmed.EventsDropped})
		}
	}
}
