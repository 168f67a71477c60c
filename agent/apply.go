package agent

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/store"
)

// apply makes body the running configuration, or leaves everything as it was,
// and tells Core which.
func (a *Agent) apply(ctx context.Context, body []byte, etag string) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	d, err := parseConfig(body)
	if err != nil {
		if d.config.Revision != 0 {
			a.sync.setWanted(d.config.Revision)
		}
		a.applyFailed(d.config.Revision, err)
		return err
	}
	a.sync.setWanted(d.config.Revision)
	owners, inUse, err := a.assignLocked(d)
	if err == nil {
		// While both states may run, no slot of either is given back.
		before := a.inUse
		a.inUse = union(before, inUse)
		if err = a.applyEnginesLocked(ctx, d); err != nil {
			a.inUse = before
		}
		a.handleNotices() // what the engines reported meanwhile comes before the outcome
	}
	if err != nil {
		if ctx.Err() == nil {
			a.applyFailed(d.config.Revision, err)
		}
		return err
	}
	a.inUse, a.running = inUse, d
	a.inbox.forgetClosed(inUse)
	if err := a.commitLocked(d.config.Revision, etag, body, owners); err != nil {
		// It runs, and it is not kept: the next try finds nothing to change
		// and commits again.
		a.applyFailed(d.config.Revision, err)
		return err
	}
	a.sync.setRunning(d.config.Revision, etag, body)
	a.crashes.applied(time.Now())
	a.log.Info("configuration applied", logkey.Revision, d.config.Revision, logkey.Inbounds, d.inbounds(), logkey.Clients, d.clients())
	a.reporter.Applied(d.config.Revision)
	a.reportUnattributed(d)
	freeParseMemory(body)
	return nil
}

// commitLocked keeps the configuration, which runs already, for the next start.
func (a *Agent) commitLocked(revision int64, etag string, body []byte, owners []store.Owner) error {
	packed, err := store.Pack(body)
	if err != nil {
		return err
	}
	history, err := a.store.History()
	if err != nil {
		return err
	}
	now := time.Now()
	history = history.Applied(store.Config{Revision: revision, ETag: etag, Body: packed}, a.crashes.proved(now))
	return a.store.Commit(now, a.counters, history, owners)
}

// reportUnattributed names, once a revision, clients whose traffic belongs to nobody.
func (a *Agent) reportUnattributed(d desired) {
	byTag := map[string]int{}
	for _, in := range d.xray.Inbounds {
		for _, client := range in.Clients {
			if !client.Tied {
				byTag[in.Tag]++
			}
		}
	}
	for _, in := range d.mtproto.Inbounds {
		for _, client := range in.Clients {
			if _, tied := d.config.ClientMap[client.ID]; !tied {
				byTag[in.Tag]++
			}
		}
	}
	if len(byTag) == 0 {
		return
	}
	a.log.Warn("clients are in no client map: served, but their traffic is counted under the outbounds alone", logkey.ByInbound, byTag)
	a.reporter.Noted(fmt.Errorf("revision %d: clients in no client map, by inbound: %v", d.config.Revision, byTag))
}

// largeBody is from how many bytes on reading a configuration leaves enough behind to
// be worth a garbage collection of its own.
const largeBody = 1 << 20

// freeParseMemory returns to the host, soon, what reading the configuration took: with a
// hundred thousand clients that is several times what they need.
func freeParseMemory(body []byte) {
	if len(body) >= largeBody {
		go debug.FreeOSMemory()
	}
}
