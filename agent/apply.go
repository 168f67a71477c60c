package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/internal/pulse"
	"nodeagent/store"
	"nodeagent/xray"
)

// maxRefusals bounds how often one document is proposed to the engines, each time without
// the parts that were refused before.
const maxRefusals = 64

// apply makes body, a NodeConfig, the running configuration as far as that can be done, and
// reports to Core what became of it. Clients that the document lets in no longer are out
// afterwards, whatever else is wrong. The way of a configuration, from top to bottom:
//
//	parseConfig          desired.go   what does it say, part by part?
//	removeClientsLocked  apply.go     clients that it does not let in are out, and stay out
//	newProposal          proposal.go  what to ask the engines for
//	assignLocked         slots.go     a counter for each client and outbound
//	applyEnginesLocked   engines.go   both engines have it, or neither
//	handleNotices        failures.go  what the engines reported meanwhile
//	refuse               proposal.go  which parts were wrong: the proposal shrinks
//	commitLocked         apply.go     the store has it, for the next start
//
// Slots are assigned before an engine counts to them, and attributions change in the commit:
// what was counted until then belongs to the previous owner.
//
// The error is nil where the document runs as a whole. A *partialError says that it runs in
// part.
func (a *Agent) apply(ctx context.Context, body []byte, etag string) error {
	beat := a.pulse.Begin("an apply of a configuration", a.live().StepLimit)
	defer beat.End()
	a.applying.Lock()
	defer a.applying.Unlock()
	d, unread, err := parseConfig(body)
	if d.revision != 0 || err == nil {
		a.sync.setWanted(d.revision)
	}
	if err != nil {
		a.removeClientsLocked(ctx, d, etag, body)
		a.applyFailed(d.revision, err)
		return err
	}
	beat.Step() // another apply was waited for
	if a.running.loses(d) {
		// First, because the rest can take long to be tried, and can be undone.
		a.removeClientsLocked(ctx, d, etag, body)
	}
	p := newProposal(d, a.running, unread)
	running, owners, inUse, err := a.converge(ctx, p, beat)
	if err != nil {
		if ctx.Err() == nil {
			a.removeClientsLocked(ctx, d, etag, body)
			a.applyFailed(d.revision, err)
		}
		return err
	}
	p.refused = append(p.refused, a.withoutTelemt()...)
	a.runsLocked(running, inUse)
	a.settles = len(p.refused) == 0 && running.settles()
	a.letGoLocked()
	a.inbox.forgetClosed(inUse)
	beat.Step()
	if err := a.commitLocked(d.revision, etag, body, owners, len(p.refused) == 0); err != nil {
		// It runs, but the next start would not serve it. The next try finds nothing to
		// change in the engines and commits again.
		a.applyFailed(d.revision, err)
		return err
	}
	a.crashes.applied(time.Now())
	if len(p.refused) > 0 {
		err := &partialError{p.refused}
		a.appliedInPart(d.revision, p.refused)
		return err
	}
	a.sync.setRunning(d.revision, etag, body)
	a.log.Info("configuration applied", logkey.Revision, d.revision, logkey.Inbounds, d.inbounds(), logkey.Clients, d.clients())
	a.reporter.Applied(d.revision)
	a.reportUnattributed(d)
	if len(body) >= largeBody {
		a.freeMemory()
	}
	return nil
}

// converge proposes to the engines what p wants, and takes back the parts that are at fault
// until they take the rest. It returns what runs then. An error means that nothing was
// changed: no part of the document is at fault, or ctx ended. Each try is a step of beat.
func (a *Agent) converge(ctx context.Context, p *proposal, beat *pulse.Beat) (running desired, owners []store.Owner, inUse slotSet, err error) {
	for try := 1; ; try++ {
		beat.Step()
		d, err := p.desired()
		if err != nil {
			return d, nil, nil, err
		}
		owners, inUse, err := a.assignLocked(d)
		if err != nil {
			return d, nil, nil, err
		}
		// While either configuration may run, no slot of either is given back.
		before := a.inUse
		a.inUse = union(before, inUse)
		err = a.applyEnginesLocked(ctx, d)
		a.handleNotices() // so that Core is told of a crash before the outcome that it led to
		if err == nil {
			return d, owners, inUse, nil
		}
		a.inUse = before
		if ctx.Err() != nil || errors.Is(err, xray.ErrFatalChange) || try == maxRefusals || !p.refuse(err) {
			return d, nil, nil, err
		}
	}
}

// removeClientsLocked leaves what runs as it is, without the clients that the document wanted
// lets in no longer. The document is stored, so that they stay out after a restart too. It is
// called before anything else of a document is tried, and for one that cannot be applied.
func (a *Agent) removeClientsLocked(ctx context.Context, wanted desired, etag string, body []byte) {
	if wanted.clientMap.missing() {
		return // the document names no clients that could be let in
	}
	kept := a.running
	err := kept.removeClients(wanted)
	var owners []store.Owner
	var inUse slotSet
	if err == nil {
		owners, inUse, err = a.assignLocked(kept)
	}
	if err == nil && kept.differs(a.running) {
		a.inUse = union(a.inUse, inUse)
		err = a.applyEnginesLocked(ctx, kept)
	}
	if err == nil {
		a.runsLocked(kept, inUse)
		a.settles = false
		a.inbox.forgetClosed(inUse)
		err = a.commitLocked(wanted.revision, etag, body, owners, false)
	}
	if err != nil {
		a.log.Error("remove the clients that Core's newest configuration lets in no longer", logkey.Revision, wanted.revision, logkey.Error, err)
		a.reporter.Noted(fmt.Errorf("clients that revision %d removes may still be served: %w", wanted.revision, err))
	}
}

// partialError says that a document runs without some of its parts.
type partialError struct{ parts []*fault.Fault }

func (e *partialError) Error() string {
	if len(e.parts) == 1 {
		return e.parts[0].Message
	}
	return fmt.Sprintf("%d parts are refused; the first: %s", len(e.parts), e.parts[0].Message)
}

// retry reports whether another try can help.
func (e *partialError) retry() bool {
	return slices.ContainsFunc(e.parts, func(f *fault.Fault) bool { return f.Retry })
}

// commitLocked stores the configuration, which the engines have already: as a whole, or in
// part.
func (a *Agent) commitLocked(revision int64, etag string, body []byte, owners []store.Owner, whole bool) error {
	packed, err := store.Pack(body)
	if err != nil {
		return err
	}
	history, err := a.toStoreLocked()
	if err != nil {
		return err
	}
	now := time.Now()
	config := store.Config{Revision: revision, ETag: etag, Body: packed}
	if whole {
		history = history.Applied(config, a.crashes.proved(now))
	} else {
		history = history.WithPending(config)
	}
	if history.Admitted, err = a.running.admitted(); err != nil {
		return err
	}
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
			if !d.clientMap.has(client.ID) {
				byTag[in.Tag]++
			}
		}
	}
	if len(byTag) == 0 {
		return
	}
	a.log.Warn("the client map does not name some clients: they are served, and their traffic is counted for the outbounds only", logkey.ByInbound, byTag)
	a.reporter.Noted(fmt.Errorf("revision %d: clients that the client map does not name, by inbound: %v", d.revision, byTag))
}

// largeBody is the size in bytes from which on parsing a configuration leaves so much
// garbage that a garbage collection pays.
const largeBody = 1 << 20

// freeMemory returns the memory to the host that reading and applying a document took, in the
// background. For a hundred thousand clients it is several times the memory that they occupy. Where a
// configuration is applied or changed now, it waits until that is done.
func (a *Agent) freeMemory() {
	go func() {
		a.applying.Lock()
		a.applying.Unlock() //nolint:staticcheck // the lock guards nothing here: this waits for the apply to end

		runtime.GC() // pools of encoders keep their buffers for one collection
		debug.FreeOSMemory()
		a.store.FreeMapped()
		a.memoryFreed()
	}()
}
