package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"nodeagent/agent/delivery"
	"nodeagent/agent/identity"
	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
	"nodeagent/xray"
)

const (
	// heldAfter is how long an answer takes at least that Core held back on purpose.
	heldAfter = time.Second
	// heldPause is the shortest pause after a held heartbeat. It limits the requests to a
	// Core that holds each of them for a short time.
	heldPause = 200 * time.Millisecond
	// unreachableMax bounds the pause while Core does not answer.
	unreachableMax = time.Minute
	// tellHeld is the longest pause until Core is told that the node holds another document, though it
	// runs no other revision. It is not 0: a Core may give a document another ETag each time.
	tellHeld = time.Second
	// retryApplyMin and retryApplyMax bound the pause before a configuration that could not
	// be applied is tried again. The pause doubles with each try.
	retryApplyMin = 15 * time.Second
	retryApplyMax = 10 * time.Minute
)

// syncLoop sends heartbeats, and fetches and applies configurations, until ctx ends.
func (a *Agent) syncLoop(ctx context.Context) {
	heartbeats, fetches := a.newOutage(), a.newOutage()
	var fetchAt time.Time // no fetch before that time, after one that failed
	beat := a.pulse.Begin("", 0)
	defer beat.End()
	for {
		beat.Do("a heartbeat", requestLimit+a.heartbeatWait())
		started := time.Now()
		a.link.Asked()
		answer, err := a.core.Heartbeat(ctx, wire.HeartbeatRequest{IP: a.config.IP, Revision: a.sync.runningRevision()}, a.heldETag(), rand.Text(), a.heartbeatWait())
		if ctx.Err() != nil {
			return
		}
		beat.Do("", 0) // apply and fetch have their own
		a.link.Heartbeat(err)
		a.checkClock(a.core.Skew(), err)
		pause := a.jitter(a.live().HeartbeatInterval)
		if err == nil {
			heartbeats.end()
			a.troubles.note(troubleHeartbeat, nil)
			a.troubles.note(troubleKey, nil)
			a.troubles.note(troubleMachine, nil)
		}
		switch {
		case err != nil:
			pause = a.heartbeatFailed(ctx, err, heartbeats)
			a.retryRefused(ctx)
		case answer.NeedSync && time.Now().Before(fetchAt): // only heartbeats until then
		case answer.NeedSync:
			held := a.heldETag()
			changed, err := a.follow(ctx, answer.Delta)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				fetchAt = time.Now().Add(a.unreachable(troubleFetch, err, fetches))
				break
			}
			fetches.end()
			a.troubles.note(troubleFetch, nil)
			switch {
			case changed:
				pause = 0 // tell Core the new revision
			case a.heldETag() != held:
				pause = min(pause, tellHeld) // the document is refused in part: Core holds the next heartbeat
			}
		default:
			a.troubles.note(troubleFetch, nil) // none is wanted any more
			if answer.Held {
				a.retryRefused(ctx)
			}
			if took := time.Since(started); took >= heldAfter {
				pause = max(heldPause, pause-took)
			}
		}
		beat.Do("the wait for the next heartbeat", pause+requestLimit)
		if !a.await(ctx, pause) {
			return
		}
	}
}

// await waits for the pause, or until Core is worth asking at once. It returns false where ctx
// ends first.
func (a *Agent) await(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-a.changed:
		return true
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// retryRefused tries a configuration again that was refused, in part or as a whole, where
// that is due and can help. Core is not needed for it.
func (a *Agent) retryRefused(ctx context.Context) {
	refused := a.sync.refusedConfig()
	if refused == nil || refused.final || time.Now().Before(refused.retryAt) {
		return
	}
	a.applyAgain(ctx, refused)
}

// applyAgain applies a configuration once more that was refused.
func (a *Agent) applyAgain(ctx context.Context, refused *refusal) {
	next := a.tryApply(ctx, refused.body, refused.etag)
	if next == nil {
		return
	}
	next.waits = refused.waits
	if next.crashes > 0 {
		next.crashes += refused.crashes
	}
	a.refuse(next)
}

// refuse keeps a configuration that was refused, and sets the time of its next try.
func (a *Agent) refuse(next *refusal) {
	if next.crashes >= crashesInARow {
		a.log.Error("the worker crashed each time that this configuration was applied; it is not tried again, only another one is", logkey.Crashes, next.crashes)
		next.final = true
	}
	next.retryAt = time.Now().Add(next.waits.NextBackOff())
	a.sync.setRefused(next)
}

// heldETag returns the ETag of the document that the node holds: the one that was refused, in
// part or as a whole, or else the one that runs. Core has nothing newer for the node while
// that is the newest. It is empty where Core sends no ETags.
func (a *Agent) heldETag() string {
	if refused := a.sync.refusedConfig(); refused != nil {
		return refused.etag
	}
	etag, _ := a.sync.runningConfig()
	return etag
}

// heartbeatWait is how long Core may hold a heartbeat: until the next try of a configuration
// that was refused. It is 0 where Core cannot know which configuration that is, for it has no
// ETag. It is also 0 until Core has answered, at the start and after an outage: status then
// says at once that it does.
func (a *Agent) heartbeatWait() time.Duration {
	longest := a.config.HeartbeatWait
	lastGood, _ := a.link.State()
	_, away := a.troubles.has(troubleHeartbeat)
	refused := a.sync.refusedConfig()
	if refused != nil && refused.etag == "" || away || lastGood.IsZero() {
		return 0
	}
	if refused != nil && !refused.final {
		return max(0, min(longest, time.Until(refused.retryAt)))
	}
	return longest
}

// outage counts the failures of one request in a row.
type outage struct {
	failures int
	waits    *backoff.ExponentialBackOff
}

func (a *Agent) newOutage() *outage {
	return &outage{waits: wait.Doubling(a.live().HeartbeatInterval, max(unreachableMax, a.live().HeartbeatInterval))}
}

func (o *outage) end() {
	o.failures = 0
	o.waits.Reset()
}

// heartbeatFailed returns how long to wait before the next heartbeat.
func (a *Agent) heartbeatFailed(ctx context.Context, err error, heartbeats *outage) time.Duration {
	if errors.Is(err, identity.ErrOtherMachine) {
		return a.onOtherMachine(ctx, err)
	}
	a.troubles.note(troubleMachine, nil)
	if coreclient.ClassOf(err) == coreclient.Rejected {
		a.troubles.note(troubleHeartbeat, nil)
		a.troubles.note(troubleKey, err)
		a.log.Error("Core does not accept this node's key; clients are still served, and Core is asked once a minute", logkey.Error, err, logkey.NextIn, delivery.RejectedWait)
		return max(a.jitter(delivery.RejectedWait), coreclient.RetryAfter(err))
	}
	return a.unreachable(troubleHeartbeat, err, heartbeats)
}

// adoptionWait is the pause between two looks at whether an operator has adopted this machine.
const adoptionWait = 2 * time.Second

// onOtherMachine fetches the configuration once a minute, so that clients that were removed go,
// while nothing is sent to Core.
func (a *Agent) onOtherMachine(ctx context.Context, err error) time.Duration {
	if a.troubles.note(troubleMachine, err) {
		a.log.Error("nothing is sent to Core, and clients are served on", logkey.Error, err)
		a.otherMachineFetch = time.Time{}
	}
	if time.Since(a.otherMachineFetch) < delivery.RejectedWait {
		return adoptionWait
	}
	a.otherMachineFetch = time.Now()
	if _, err := a.follow(ctx, nil); err != nil && ctx.Err() == nil {
		a.log.Warn("fetch the configuration", logkey.Error, err)
	}
	return adoptionWait
}

// unreachable adds a failure to the outage and returns how long to wait before the request is
// made again.
func (a *Agent) unreachable(what trouble, err error, o *outage) time.Duration {
	o.failures++
	pause := max(a.jitter(o.waits.NextBackOff()), coreclient.RetryAfter(err))
	a.log.Warn("a request to Core failed; trying again", logkey.Request, what, logkey.Error, err, logkey.Failures, o.failures, logkey.NextIn, pause)
	a.troubles.note(what, err)
	a.reporter.Unreachable(err)
	return pause
}

// follow brings the node to the configuration that Core wants. offered is the delta that came with
// the heartbeat, nil for none. changedRevision tells that another revision runs afterwards. An error
// means that the configuration could not be fetched.
func (a *Agent) follow(ctx context.Context, offered []byte) (changedRevision bool, err error) {
	before := a.sync.runningRevision()
	followed := false
	if offered != nil {
		followed = a.takeDelta(ctx, offered)
	} else if a.heldETag() != "" {
		followed, err = a.fetchDelta(ctx)
	}
	if err == nil && !followed && ctx.Err() == nil {
		err = a.fetchAndApply(ctx)
	}
	now := a.sync.runningRevision()
	return now != nil && (before == nil || *before != *now), err
}

// takeDelta applies a delta. It returns false where the whole configuration has to be fetched.
func (a *Agent) takeDelta(ctx context.Context, raw []byte) (applied bool) {
	err := a.applyDelta(ctx, raw)
	if ctx.Err() != nil {
		return false
	}
	a.troubles.note(troubleDelta, err)
	if err != nil {
		a.log.Warn("what Core changed in the configuration can't be used; asking for the whole of it", logkey.Error, err)
	}
	return err == nil
}

// fetchDelta asks Core for what it has changed in the document that the node holds, and applies the
// answer. followed is false where Core does not know deltas, or its delta can't be used: then the
// whole configuration has to be fetched.
func (a *Agent) fetchDelta(ctx context.Context) (followed bool, err error) {
	held := a.heldETag()
	beat := a.pulse.Begin("a fetch of what changed in the configuration", requestLimit)
	update, err := a.core.Update(ctx, held)
	beat.End()
	if failed, is := errors.AsType[*coreclient.Error](err); is && failed.RefusesAsking() {
		return false, nil
	}
	a.link.Answered(wire.PathConfig, err)
	switch {
	case errors.Is(err, coreclient.ErrDelta):
		a.troubles.note(troubleDelta, err)
		a.log.Warn("what Core changed in the configuration can't be used; asking for the whole of it", logkey.Error, err)
		return false, nil
	case err != nil:
		return false, err
	case !update.Delta:
		a.applyFetched(ctx, update)
		return true, nil
	}
	return a.takeDelta(ctx, update.Body), nil
}

// fetchAndApply fetches Core's whole configuration and applies it. An error means that the
// configuration could not be fetched.
func (a *Agent) fetchAndApply(ctx context.Context) error {
	beat := a.pulse.Begin("a fetch of the configuration", requestLimit)
	body, etag, changed, err := a.core.Config(ctx, a.heldETag())
	beat.End()
	a.link.Answered(wire.PathConfig, err)
	if err == nil {
		a.applyFetched(ctx, coreclient.Update{Body: body, ETag: etag, Changed: changed})
	}
	return err
}

// applyFetched applies a configuration if it is new, or if it was refused and its next try is due.
func (a *Agent) applyFetched(ctx context.Context, fetched coreclient.Update) {
	_, running := a.sync.runningConfig()
	refused := a.sync.refusedConfig()
	hash, changed := sha256.Sum256(fetched.Body), fetched.Changed
	if changed { // a Core without ETags sends the same configuration each time
		changed = refused != nil && hash != refused.hash || refused == nil && hash != running
	}
	switch {
	case !changed && refused == nil:
		// Core wants the revision that runs: it has not got the report that it runs.
		if revision := a.sync.runningRevision(); revision != nil {
			a.reporter.Applied(*revision)
		}
	case !changed && (refused.final || time.Now().Before(refused.retryAt)):
	case !changed:
		a.applyAgain(ctx, refused)
	default:
		if a.changeByWhole(ctx, fetched.Body, fetched.ETag) || ctx.Err() != nil {
			return
		}
		if next := a.tryApply(ctx, fetched.Body, fetched.ETag); next != nil {
			a.refuse(next)
		}
	}
}

// canRetry reports whether another try of the same document can help.
func canRetry(err error) bool {
	if partial, ok := errors.AsType[*partialError](err); ok {
		return partial.retry()
	}
	return fault.Of(err).Retry
}

// tryApply applies a configuration. It returns why that failed; nil where it runs, and where
// ctx ended meanwhile.
func (a *Agent) tryApply(ctx context.Context, body []byte, etag string) *refusal {
	err := a.apply(ctx, body, etag)
	switch {
	case err == nil:
		a.sync.setRefused(nil)
		return nil
	case ctx.Err() != nil:
		return nil
	}
	return a.refusalOf(err, body, etag)
}

// refusalOf returns the refusal of a configuration that could not be applied because of err.
func (a *Agent) refusalOf(err error, body []byte, etag string) *refusal {
	now, before := time.Now(), a.sync.refusedConfig()
	next := &refusal{etag: etag, body: body, hash: sha256.Sum256(body), final: !canRetry(err), waits: wait.Doubling(retryApplyMin, retryApplyMax), reason: err.Error(), since: now}
	if before != nil && before.hash == next.hash {
		next.since = before.since
	}
	if partial, ok := errors.AsType[*partialError](err); ok {
		next.parts = refusedParts(partial.parts, before, now)
	}
	if errors.Is(err, xray.ErrFatalChange) {
		next.crashes = 1
	}
	return next
}
