package agent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// rollBackLoop goes back to the configuration before one under which the worker
// crashes again and again.
func (a *Agent) rollBackLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.crashes.enough:
			a.rollBack(ctx)
		}
	}
}

func (a *Agent) rollBack(ctx context.Context) {
	a.applying.Lock()
	defer a.applying.Unlock()
	if !a.crashes.suspicious() { // another configuration came meanwhile
		return
	}
	a.crashes.forget()
	bad, _, err := a.store.Config()
	var good store.Config
	found := false
	if err == nil {
		good, found, err = a.store.Previous()
	}
	if err == nil && !found {
		a.log.Error("the worker crashes again and again, and there is no configuration to go back to", "revision", bad.Revision)
		return
	}
	if err == nil {
		err = a.goBack(ctx, good, bad)
	}
	if err != nil {
		a.log.Error("go back to the configuration before", "error", err)
		a.reporter.Failed(wire.CodeConfigApplyFailed, fmt.Sprintf("revision %d makes the xray worker crash, and going back to the one before fails: %v", bad.Revision, err), a.failureDetails(&bad.Revision, "", 0))
		return
	}
	a.sync.want(bad.Revision)
	a.sync.refuse(&refusal{etag: bad.ETag, body: bad.Body, hash: sha256.Sum256(bad.Body), final: true})
	a.log.Error("the worker crashed again and again: back to the configuration before", "crashes", crashesInARow, "revision", bad.Revision, "back_to", good.Revision)
	a.reporter.Failed(wire.CodeXrayCrashed, fmt.Sprintf("revision %d made the xray worker crash %d times in a row; revision %d runs again, until there is another one", bad.Revision, crashesInARow, good.Revision), a.failureDetails(&bad.Revision, "", 0))
}

// goBack brings Xray to a configuration that was good before, as far as that can be, and
// keeps it. MTProto stays as it is, for telemt did not crash, unless it has a port that
// Xray needs.
func (a *Agent) goBack(ctx context.Context, good, bad store.Config) error {
	good.Newer, good.Unconfirmed = bad.Body, false
	d, err := parseKept(good)
	if err != nil {
		return err
	}
	owners, inUse, err := a.assign(d)
	if err != nil {
		return err
	}
	a.inUse = union(a.inUse, inUse)
	if takesPort(d.xray, a.running.telemt) {
		if err := a.mtproto.Apply(ctx, d.telemt); err != nil {
			a.log.Error("MTProto does not let go of a port of the configuration before", "revision", good.Revision, "error", err)
		}
	}
	if err := a.xray.Restore(ctx, d.xray); err != nil {
		a.log.Error("parts of the configuration before do not run; trying again", "revision", good.Revision, "error", err)
	}
	a.inUse, a.running = inUse, d
	a.inbox.forgetClosed(inUse)
	a.sync.ran(good.Revision, good.ETag, good.Body)
	if err := a.store.Commit(time.Now(), a.counters, good, owners); err != nil {
		// It runs; another start would begin with the bad one, and come here again.
		a.log.Error("keep the configuration before", "revision", good.Revision, "error", err)
	}
	return nil
}
