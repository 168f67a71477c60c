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
	"nodeagent/xray"
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
	a.sync.refuse(&refusal{etag: bad.ETag, body: bad.Body, hash: sha256.Sum256(bad.Body), final: true})
	a.log.Error("the worker crashed again and again: back to the configuration before", "crashes", crashesInARow, "revision", bad.Revision, "back_to", good.Revision)
	a.reporter.failed(wire.CodeXrayCrashed, fmt.Sprintf("revision %d made the xray worker crash %d times in a row; revision %d runs again, until there is another one", bad.Revision, crashesInARow, good.Revision), a.failureDetails(&bad.Revision, "", 0))
}

// goBack brings the engines to a configuration that was good before, as far as that
// can be, and keeps it. Who was removed since stays out.
func (a *Agent) goBack(ctx context.Context, good, bad store.Config) error {
	d, err := parse(good.Body)
	if err != nil {
		return err
	}
	newer, err := parse(bad.Body)
	if err != nil {
		return err
	}
	d.leaveOut(newer.config.ClientMap)
	inUse, err := a.assign(d)
	if err != nil {
		return err
	}
	a.inUse = union(a.inUse, inUse)
	if err := a.xray.Restore(ctx, d.xray); err != nil {
		a.log.Error("parts of the configuration before do not run; trying again", "revision", good.Revision, "error", err)
	}
	if err := a.mtproto.Apply(ctx, d.telemt); err != nil {
		return err
	}
	a.inUse, a.running = inUse, d
	a.forgetClosed(inUse)
	if err := a.store.Commit(time.Now(), a.sources(), good, d.owners); err != nil {
		return err
	}
	a.sync.ran(good.Revision, good.ETag, good.Body)
	return nil
}

// leaveOut takes the clients out of the configuration that its client map has and
// a newer one's has not. Accounts of SOCKS and HTTP stay: they are a part of their
// inbound.
func (d *desired) leaveOut(newer map[string]wire.ClientRef) {
	gone := func(key string) bool {
		_, was := d.config.ClientMap[key]
		_, is := newer[key]
		return was && !is
	}
	for tag, in := range d.xray.Inbounds {
		in.Clients = slices.DeleteFunc(slices.Clone(in.Clients), func(c xray.Client) bool { return gone(c.Key) })
		d.xray.Inbounds[tag] = in
	}
	for i := range d.telemt.Inbounds {
		in := &d.telemt.Inbounds[i]
		in.Clients = slices.DeleteFunc(in.Clients, func(c telemt.Client) bool { return gone(c.ID) })
	}
}
