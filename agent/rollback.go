package agent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/xray/state"
)

const (
	// crashesInARow make a configuration suspect.
	crashesInARow = 3
	// crashWindow is how soon one crash has to follow another to be in a row with
	// it.
	crashWindow = time.Minute
)

// crashes counts those of the Xray worker since the running configuration was
// applied.
type crashes struct {
	mu     sync.Mutex
	count  int
	last   time.Time     // of the last crash
	since  time.Time     // of the running configuration
	enough chan struct{} // of one slot: that many came in a row
}

func newCrashes() *crashes { return &crashes{enough: make(chan struct{}, 1)} }

func (c *crashes) happened(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.last) > crashWindow {
		c.count = 0
	}
	c.count, c.last = c.count+1, now
	if c.count >= crashesInARow {
		select {
		case c.enough <- struct{}{}:
		default:
		}
	}
}

// forget begins to count anew: what made them is gone.
func (c *crashes) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count = 0
}

// applied tells that another configuration runs. Crashes of a moment ago go on
// counting: it may have their cause too.
func (c *crashes) applied(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = now
	if now.Sub(c.last) > crashWindow {
		c.count = 0
	}
}

// proved tells whether the running configuration has shown itself good: for a while
// the worker has not crashed under it.
func (c *crashes) proved(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.since) > crashWindow && now.Sub(c.last) > crashWindow
}

func (c *crashes) suspicious() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count >= crashesInARow
}

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
		a.reporter.failed(wire.CodeConfigApplyFailed, fmt.Sprintf("revision %d makes the xray worker crash, and going back to the one before fails: %v", bad.Revision, err), a.failureDetails(&bad.Revision, "", 0))
		return
	}
	a.sync.want(bad.Revision)
	a.sync.refuse(&refusal{etag: bad.ETag, body: bad.Body, hash: sha256.Sum256(bad.Body), final: true})
	a.log.Error("the worker crashed again and again: back to the configuration before", "crashes", crashesInARow, "revision", bad.Revision, "back_to", good.Revision)
	a.reporter.failed(wire.CodeXrayCrashed, fmt.Sprintf("revision %d made the xray worker crash %d times in a row; revision %d runs again, until there is another one", bad.Revision, crashesInARow, good.Revision), a.failureDetails(&bad.Revision, "", 0))
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
	inUse, err := a.assign(d)
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
	a.forgetClosed(inUse)
	a.sync.ran(good.Revision, good.ETag, good.Body)
	if err := a.store.Commit(time.Now(), a.sources(), good, d.owners); err != nil {
		// It runs; another start would begin with the bad one, and come here again.
		a.log.Error("keep the configuration before", "revision", good.Revision, "error", err)
	}
	return nil
}

// parseKept reads a configuration of the store. One that a newer one was given up for
// has Xray's part as it was, but who is not in the newer one stays out, and the newer
// MTProto part, or its own one where the newer takes a port of Xray's.
func parseKept(config store.Config) (desired, error) {
	d, err := parseConfig(config.Body)
	if err != nil || config.Newer == nil {
		return d, err
	}
	newer, err := parseConfig(config.Newer)
	if err != nil {
		return d, err
	}
	for tag, in := range d.xray.Inbounds {
		if d.xray.Inbounds[tag], err = in.Without(leftSince(in, newer)); err != nil {
			return d, err
		}
	}
	if takesPort(d.xray, newer.telemt) {
		d.leaveOutOfTelemt(newer)
		d.owners = append(d.xrayOwners(), d.telemtOwners()...)
		return d, nil
	}
	d.telemt = newer.telemt
	d.owners = append(d.xrayOwners(), newer.telemtOwners()...)
	return d, nil
}

// leaveOutOfTelemt takes those out of the MTProto inbounds whom a newer configuration
// has not, or not with this secret.
func (d *desired) leaveOutOfTelemt(newer desired) {
	secrets := map[string]string{} // one for all inbounds, as Core gives them
	for _, in := range newer.telemt.Inbounds {
		for _, c := range in.Clients {
			secrets[c.ID] = c.Secret
		}
	}
	for i := range d.telemt.Inbounds {
		in := &d.telemt.Inbounds[i]
		in.Clients = slices.DeleteFunc(in.Clients, func(c telemt.Client) bool { return secrets[c.ID] != c.Secret })
	}
}

// leftSince tells the clients of an inbound that a newer configuration does not let in:
// on that inbound, where it still has it, and else anywhere.
func leftSince(in state.Inbound, newer desired) func(state.Client) bool {
	now, stays := newer.xray.Inbounds[in.Tag]
	if !stays {
		return func(c state.Client) bool {
			_, known := newer.config.ClientMap[c.Key]
			return !known
		}
	}
	byKey := make(map[string]state.Client, len(now.Clients))
	for _, c := range now.Clients {
		byKey[c.Key] = c
	}
	return func(c state.Client) bool {
		if c.Key == "" { // an account that is nobody's
			return !now.HasAccount(c.Account)
		}
		still, is := byKey[c.Key]
		return !is || !c.SameCredential(still)
	}
}
