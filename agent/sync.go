package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"time"

	"nodeagent/agent/delivery"
	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
	"nodeagent/xray"
)

const (
	// heldAfter tells a heartbeat that Core held from one that it answered at
	// once.
	heldAfter = time.Second
	// heldPause follows a held heartbeat, so that a Core that answers all too
	// early is not asked in a circle.
	heldPause = 200 * time.Millisecond
	// unreachableMax bounds the wait for a Core that does not answer.
	unreachableMax = time.Minute
	// A configuration that could not be applied may work later (a port gets
	// free): it is tried again, ever less often.
	retryApplyMin = 15 * time.Second
	retryApplyMax = 10 * time.Minute
)

// syncLoop sends heartbeats and fetches what Core has new, until ctx ends.
func (a *Agent) syncLoop(ctx context.Context) {
	failures, fetchFailures := 0, 0
	var fetchAt time.Time // not before
	for {
		started := time.Now()
		answer, err := a.core.Heartbeat(ctx, wire.HeartbeatRequest{IP: a.config.IP, Revision: a.sync.runningRevision()}, rand.Text(), a.heartbeatWait())
		if ctx.Err() != nil {
			return
		}
		a.link.Heartbeat(err)
		a.checkClock(a.core.Skew(), err)
		pause := a.jitter(a.config.HeartbeatInterval)
		if err == nil {
			failures = 0
		}
		switch {
		case err != nil:
			failures++
			pause = a.heartbeatFailed(err, failures)
		case answer.NeedSync && time.Now().Before(fetchAt): // heartbeats go on meanwhile
		case answer.NeedSync:
			changed, err := a.fetchAndApply(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				fetchFailures++
				fetchAt = time.Now().Add(a.unreachable("fetch configuration", err, fetchFailures))
				break
			}
			fetchFailures = 0
			if changed {
				pause = 0 // tell Core the new revision
			}
		default:
			if took := time.Since(started); took >= heldAfter {
				pause = max(heldPause, pause-took)
			}
		}
		if !wait.For(ctx, pause) {
			return
		}
	}
}

// heartbeatWait lets Core hold the heartbeat, unless the agent itself has
// something to do before: Core would answer at once, again and again.
func (a *Agent) heartbeatWait() time.Duration {
	if a.sync.refusedConfig() != nil {
		return 0
	}
	return a.config.HeartbeatWait
}

func (a *Agent) heartbeatFailed(err error, failures int) time.Duration {
	if coreclient.ClassOf(err) == coreclient.Rejected {
		a.log.Error("Core does not accept this node's key; serving on, asking rarely", logkey.Error, err, logkey.NextIn, delivery.RejectedWait)
		return max(a.jitter(delivery.RejectedWait), coreclient.RetryAfter(err))
	}
	return a.unreachable("heartbeat", err, failures)
}

// unreachable is how long to wait after so many failures in a row.
func (a *Agent) unreachable(what string, err error, failures int) time.Duration {
	pause := min(a.config.HeartbeatInterval<<min(failures-1, 10), max(unreachableMax, a.config.HeartbeatInterval))
	pause = max(a.jitter(pause), coreclient.RetryAfter(err))
	a.log.Warn("Core does not answer as it should", logkey.Request, what, logkey.Error, err, logkey.Failures, failures, logkey.NextIn, pause)
	a.reporter.Noted(err)
	return pause
}

// fetchAndApply returns whether another revision runs afterwards. An error means that
// Core did not give its configuration.
func (a *Agent) fetchAndApply(ctx context.Context) (changedRevision bool, err error) {
	etag, running := a.sync.runningConfig()
	refused := a.sync.refusedConfig()
	if refused != nil {
		etag = refused.etag
	}
	body, newETag, changed, err := a.core.Config(ctx, etag)
	hash := sha256.Sum256(body)
	if err == nil && changed { // a Core without ETags sends it every time
		changed = refused != nil && hash != refused.hash || refused == nil && hash != running
	}
	switch {
	case err != nil:
		return false, err
	case !changed && refused == nil:
		// Core asks for a sync to what runs: it missed the report.
		if revision := a.sync.runningRevision(); revision != nil {
			a.reporter.Applied(*revision)
		}
		return false, nil
	case !changed && (refused.final || time.Now().Before(refused.retryAt)):
		return false, nil
	case !changed:
		body, newETag = refused.body, refused.etag
	}
	before := a.sync.runningRevision()
	if next := a.tryApply(ctx, body, newETag); next != nil {
		if refused != nil && !changed {
			next.wait = min(2*refused.wait, retryApplyMax)
			if next.crashes > 0 {
				next.crashes += refused.crashes
			}
		}
		if next.crashes >= crashesInARow {
			a.log.Error("the worker ended over this configuration again and again: it is not tried any more, until there is another one", logkey.Crashes, next.crashes)
			next.final = true
		}
		next.retryAt = time.Now().Add(next.wait)
		a.sync.setRefused(next)
		return false, nil
	}
	now := a.sync.runningRevision()
	return now != nil && (before == nil || *before != *now), nil
}

// tryApply applies a configuration, and returns its refusal; nil where it runs, and where the
// daemon is to end meanwhile.
func (a *Agent) tryApply(ctx context.Context, body []byte, etag string) *refusal {
	err := a.apply(ctx, body, etag)
	switch {
	case err == nil:
		a.sync.setRefused(nil)
		return nil
	case ctx.Err() != nil:
		return nil
	}
	next := &refusal{etag: etag, body: body, hash: sha256.Sum256(body), final: !fault.Of(err).Retry, wait: retryApplyMin}
	if errors.Is(err, xray.ErrFatalChange) {
		next.crashes = 1
	}
	return next
}
