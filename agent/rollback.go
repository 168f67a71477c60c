package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/store"
)

// rollBackLoop returns to the previous configuration whenever the worker has crashed
// crashesInARow times in a row.
func (a *Agent) rollBackLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.crashes.suspected:
			a.rollBack(ctx)
		}
	}
}

// rollBack gives the running configuration up. Core's next revision is tried as usual; the
// one given up is not tried again.
func (a *Agent) rollBack(ctx context.Context) {
	beat := a.pulse.Begin("a return to the previous configuration", 2*a.live().StepLimit) // and the wait for an apply
	defer beat.End()
	a.applying.Lock()
	defer a.applying.Unlock()
	if !a.crashes.suspect() { // another configuration was applied meanwhile
		return
	}
	a.crashes.reset()
	history, err := a.toStoreLocked()
	if err != nil {
		a.rollBackFailed(0, err)
		return
	}
	bad, good := history.Current, history.Previous
	if bad == nil || good == nil {
		a.log.Error("the worker keeps crashing, and there is no previous configuration to return to")
		return
	}
	body, err := bad.Body.Unpack()
	if err == nil {
		back := history.RolledBack()
		back.Narrow = history.Narrow // clients that a lost change has removed stay out
		err = a.goBackLocked(ctx, back)
	}
	if err != nil {
		a.rollBackFailed(bad.Revision, err)
		return
	}
	a.sync.setWanted(bad.Revision)
	a.sync.setRefused(&refusal{
		etag: bad.ETag, body: body, hash: sha256.Sum256(body), final: true, since: time.Now(),
		reason: fmt.Sprintf("revision %d made the xray worker crash %d times in a row", bad.Revision, crashesInARow),
	})
	a.log.Error("the worker kept crashing; the previous configuration runs again", logkey.Crashes, crashesInARow, logkey.Revision, bad.Revision, logkey.BackTo, good.Revision)
	a.reporter.Failed(wire.CodeXrayCrashed, fmt.Sprintf("revision %d made the xray worker crash %d times in a row; revision %d runs again, until there is another one", bad.Revision, crashesInARow, good.Revision), a.failureDetails(&bad.Revision, "", 0))
}

func (a *Agent) rollBackFailed(revision int64, err error) {
	a.log.Error("return to the previous configuration", logkey.Error, err)
	a.reporter.Failed(wire.CodeConfigApplyFailed, fmt.Sprintf("revision %d makes the xray worker crash, and returning to the previous one fails: %v", revision, err), a.failureDetails(&revision, "", 0))
}

// goBackLocked brings Xray to back.Current, as far as that can be done, and stores back. The
// MTProto engine stays as it is, since telemt did not crash, unless it has a port that Xray
// needs.
func (a *Agent) goBackLocked(ctx context.Context, back store.History) error {
	body, err := back.Current.Body.Unpack()
	if err != nil {
		return err
	}
	d, err := parseKept(back, body)
	if err != nil && !errors.Is(err, errNotNarrowed) { // to serve nobody would be worse
		return err
	}
	owners, inUse, err := a.assignLocked(d)
	if err != nil {
		return err
	}
	good := back.Current
	a.inUse = union(a.inUse, inUse)
	if takesPort(d.xray, a.running.mtproto) {
		if err := a.mtproto.Apply(ctx, d.mtproto); err != nil {
			a.log.Error("MTProto does not release a port of the previous configuration", logkey.Revision, good.Revision, logkey.Error, err)
		}
	}
	if err := a.xray.Restore(ctx, d.xray); err != nil {
		a.log.Error("parts of the previous configuration are not served; trying again", logkey.Revision, good.Revision, logkey.Error, err)
	}
	a.runsLocked(d, inUse)
	a.settles = false
	a.inbox.forgetClosed(inUse)
	a.sync.setRunning(good.Revision, good.ETag, body)
	if back.Admitted, err = d.admitted(); err != nil {
		return err
	}
	if err := a.store.Commit(time.Now(), a.counters, back, owners); err != nil {
		// It runs. Only the next start would begin with the bad configuration again, and
		// roll it back again.
		a.log.Error("store the previous configuration", logkey.Revision, good.Revision, logkey.Error, err)
	}
	return nil
}
