package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreclient/wire/delta"
	"nodeagent/internal/logkey"
	"nodeagent/store"
	"nodeagent/xray"
)

// errNotPatched tells that a delta has to be applied as a whole document.
var errNotPatched = errors.New("only the whole document tells")

// applyDelta applies what Core has changed in the document that the node holds. A delta that
// changes nothing but clients, of a document that runs as a whole, costs what it changes:
//
//	held.after     held.go     does it lead to the digest that it names?
//	newPatch       patch.go    the clients that come and go
//	changeLocked   change.go   slots for those that come, both engines, the store
//
// Any other one is made a document again, which is applied as a fetched one is.
//
// The error tells that the delta cannot be used, so that Core is to be asked for the whole document.
func (a *Agent) applyDelta(ctx context.Context, raw []byte) error {
	d, err := delta.Decode(raw)
	if err != nil {
		return err
	}
	if etag := a.heldETag(); d.Base != etag {
		return fmt.Errorf("it changes the document %s, and the node holds %s", printable(d.Base), etag)
	}
	var body []byte
	if refused := a.sync.refusedConfig(); refused != nil {
		body, err = documentAfter(refused.body, d)
	} else {
		body, err = a.changeOrBody(ctx, d, raw)
	}
	if err != nil || body == nil || ctx.Err() != nil {
		return err
	}
	if next := a.tryApply(ctx, body, d.ETag); next != nil {
		a.refuse(next)
	}
	return nil
}

// maxPrinted bounds how much of a text from Core an error shows, in bytes.
const maxPrinted = 80

// printable returns a text of Core's as it can stand in an error.
func printable(text string) string { return fmt.Sprintf("%.*q", maxPrinted, text) }

// documentAfter returns the document to which a delta leads.
func documentAfter(body []byte, d *delta.Delta) ([]byte, error) {
	document, err := delta.Read(body)
	if err != nil {
		return nil, err
	}
	if document, err = delta.Apply(document, d); err != nil {
		return nil, err
	}
	return document.JSON()
}

// changeOrBody applies a delta to the document that runs. Where that can only be done with the
// whole document, it changes nothing and returns the document.
func (a *Agent) changeOrBody(ctx context.Context, d *delta.Delta, raw []byte) (body []byte, err error) {
	beat := a.pulse.Begin("a change of the configuration", a.live().StepLimit)
	defer beat.End()
	a.applying.Lock()
	defer a.applying.Unlock()
	if onlyClients(d) && a.store.CanChange(d.Base, len(raw)) {
		err := a.changeLocked(ctx, d, raw)
		fatal := errors.Is(err, xray.ErrFatalChange)
		if !fatal && !errors.Is(err, errNotPatched) {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if fatal {
			body, failed := a.changedLocked(d)
			if failed == nil {
				a.refuseFatalLocked(ctx, body, d.ETag, err)
			}
			return nil, failed
		}
	}
	return a.changedLocked(d)
}

// changedLocked returns the document to which d leads from the one that runs.
func (a *Agent) changedLocked(d *delta.Delta) ([]byte, error) {
	_, body, err := a.settledLocked()
	if err != nil {
		return nil, err
	}
	return documentAfter(body, d)
}

// refuseFatalLocked refuses a document over whose change of clients the worker ended. The whole
// document would ask for the same operation, and end the next worker too.
func (a *Agent) refuseFatalLocked(ctx context.Context, body []byte, etag string, err error) {
	d, _, _ := parseConfig(body) // where it fails, d has what removeClientsLocked can do
	if d.revision != 0 {
		a.sync.setWanted(d.revision)
	}
	a.removeClientsLocked(ctx, d, etag, body)
	a.applyFailed(d.revision, err)
	a.refuse(a.refusalOf(err, body, etag))
}

// changeByWhole applies a whole document by what differs from the one that runs, where that is but
// clients. It returns false, and has changed nothing, where the whole document has to be applied; true
// where the document runs, or is refused because the worker ended over the change.
func (a *Agent) changeByWhole(ctx context.Context, body []byte, etag string) bool {
	base := a.heldETag()
	if len(body) < a.compareFrom || base == "" || etag == "" || etag == base || a.sync.refusedConfig() != nil {
		return false
	}
	beat := a.pulse.Begin("a change of the configuration", a.live().StepLimit)
	defer beat.End()
	a.applying.Lock()
	defer a.applying.Unlock()
	if !a.settles || !a.store.CanChange(base, 0) || a.holdLocked(base) != nil {
		return false
	}
	d, err := a.held.between(a.running, body, etag)
	if err != nil || size(d) > manyChanged {
		return false
	}
	raw := d.Append(nil)
	if !a.store.CanChange(base, len(raw)) {
		return false
	}
	switch err := a.changeLocked(ctx, d, raw); {
	case errors.Is(err, xray.ErrFatalChange) && ctx.Err() == nil:
		a.refuseFatalLocked(ctx, body, etag, err)
		return true
	case err != nil:
		return false
	}
	a.sync.setRunning(d.Revision, d.ETag, body)
	return true
}

// changeLocked applies a delta of clients. errNotPatched tells that the whole document has to be
// applied, and xray.ErrFatalChange that it must not be now; any other error that Core has to be asked
// for it.
func (a *Agent) changeLocked(ctx context.Context, d *delta.Delta, raw []byte) error {
	if err := a.holdLocked(d.Base); err != nil {
		return err
	}
	step, err := a.held.after(d)
	if err != nil {
		a.letGoLocked()
		return err
	}
	if !a.settles {
		return errNotPatched
	}
	counts := func(owner store.Owner) bool {
		slot, known := a.store.Slot(owner)
		return known && a.inUse.has(slot)
	}
	p, ok := newPatch(a.running, d, a.held, counts, a.grants.has)
	if !ok {
		return errNotPatched
	}
	if err := a.runLocked(ctx, p); errors.Is(err, xray.ErrFatalChange) {
		return err
	} else if err != nil {
		a.log.Warn("a change of clients is applied with the whole configuration", logkey.Revision, d.Revision, logkey.Error, err)
		return errNotPatched
	}
	if len(a.withoutTelemt()) > 0 { // before it is stored: the whole document is stored instead
		a.letGoLocked()
		return errNotPatched
	}
	now := time.Now()
	change := store.Change{
		BaseRevision: a.held.revision, Base: d.Base, Revision: d.Revision, ETag: d.ETag, Delta: raw,
		Proved: a.crashes.proved(now), Come: p.print, Gone: p.goneprints,
	}
	if err := a.store.Change(now, a.counters, change, append(p.owners, p.grantOwners...)); err != nil {
		a.log.Warn("a change of clients is stored with the whole configuration", logkey.Revision, d.Revision, logkey.Error, err)
		a.letGoLocked()
		return errNotPatched
	}
	step.done(d)
	a.mergeHeldLocked()
	a.crashes.applied(now)
	a.sync.setRunning(d.Revision, d.ETag, nil)
	a.log.Info("change of clients applied", logkey.Revision, d.Revision, logkey.Clients, a.running.clients())
	a.reporter.Applied(d.Revision)
	return nil
}

// runLocked brings the engines to a patch. On an error they are as before.
func (a *Agent) runLocked(ctx context.Context, p *patch) error {
	slots, err := a.store.Assign(p.owners)
	if err == nil {
		err = a.counters.Grow(a.store.SlotCount())
	}
	if err != nil {
		return err
	}
	before := a.inUse
	after := union(before, nil)
	for _, slot := range p.gone {
		after.remove(slot)
	}
	for i, slot := range slots {
		if i < len(p.places) {
			*p.places[i] = slot
		}
		after.add(slot)
	}
	if err := a.changeGrantsLocked(p, after); err != nil {
		return err
	}
	a.inUse = union(before, after)
	err = a.applyEnginesLocked(ctx, p.next)
	a.handleNotices()
	if err != nil {
		a.inUse = before
		return err
	}
	a.inUse, a.running = after, p.next
	a.grants.change(p.granted)
	a.inbox.forgetClosed(after)
	return nil
}

// holdLocked makes held the document with the ETag, which runs.
func (a *Agent) holdLocked(etag string) error {
	if a.held != nil && a.held.etag == etag {
		return nil
	}
	a.letGoLocked()
	history, err := a.store.History()
	if err != nil {
		return err
	}
	if a.held = a.keptHeld(history, etag); a.held != nil {
		return nil
	}
	_, body, err := settled(history, false)
	if err != nil {
		return err
	}
	if a.held, err = newHeld(body, etag); err != nil {
		return err
	}
	if history.Current != nil {
		a.keepHeldLocked(sha256.Sum256(history.Current.Body))
	}
	if len(body) >= largeBody {
		a.freeMemory()
	}
	return nil
}

// toStoreLocked returns the stored history in the form that a next one is made of: without changes.
// Changes that can't be applied are given up, because no configuration could be stored otherwise.
func (a *Agent) toStoreLocked() (store.History, error) {
	h, err := a.store.History()
	if err == nil {
		h, _, err = a.withChanges(h, true)
	}
	return h, err
}

// settledLocked returns the stored history without changes, and the current document: see settled.
func (a *Agent) settledLocked() (h store.History, body []byte, err error) {
	if h, err = a.store.History(); err != nil {
		return h, nil, err
	}
	return settled(h, false)
}
