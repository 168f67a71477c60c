package agent

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/store"
)

// apply makes body, a NodeConfig, the running configuration, and reports to Core that it
// runs. Where that fails, everything stays as it was, and Core is told why. The way of a
// configuration, from top to bottom:
//
//	parseConfig          desired.go   what does it say?
//	assignLocked         slots.go     a counter for each client and outbound
//	applyEnginesLocked   engines.go   both engines have it, or neither
//	handleNotices        failures.go  what the engines reported meanwhile
//	commitLocked         apply.go     the store has it, for the next start
//
// Slots are assigned before an engine counts to them, and attributions change in the commit:
// what was counted until then belongs to the previous owner.
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
		// While either configuration may run, no slot of either is given back.
		before := a.inUse
		a.inUse = union(before, inUse)
		if err = a.applyEnginesLocked(ctx, d); err != nil {
			a.inUse = before
		}
		a.handleNotices() // so that Core is told of a crash before the outcome that it led to
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
		// It runs, but the next start would not serve it. The next try finds nothing to
		// change in the engines and commits again.
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

// commitLocked stores the configuration, which the engines have already.
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

// reportUnattributed logs how many clients of each inbound the client map does not name.
// Their traffic is attributed to no user.
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
	a.log.Warn("the client map does not name some clients: they are served, and their traffic is counted for the outbounds only", logkey.ByInbound, byTag)
	a.reporter.Noted(fmt.Errorf("revision %d: clients that the client map does not name, by inbound: %v", d.config.Revision, byTag))
}

// largeBody is the size in bytes from which on parsing a configuration leaves so much
// garbage that a garbage collection pays.
const largeBody = 1 << 20

// freeParseMemory returns the memory that parsing body took to the host, in the background.
// For a hundred thousand clients it is several times the memory that they occupy.
func freeParseMemory(body []byte) {
	if len(body) >= largeBody {
		go debug.FreeOSMemory()
	}
}
