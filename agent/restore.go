package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/store"
	"nodeagent/telemt/service"
	"nodeagent/xray/state"
)

// restoreWait bounds how long Run waits for restore before it starts its other loops.
const restoreWait = 5 * time.Second

// startRestoring runs restore in a goroutine of loops. It returns when that is done, or
// after restoreWait: heartbeats and reports must not wait for a worker that does not start.
func (a *Agent) startRestoring(ctx context.Context, loops *sync.WaitGroup) {
	restored := make(chan struct{})
	loops.Go(func() {
		defer close(restored)
		a.restore(ctx)
		a.knowTelemts(ctx)
		a.applyPending(ctx)
		a.freeMemory()
	})
	timer := time.NewTimer(restoreWait)
	defer timer.Stop()
	select {
	case <-restored:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// knowTelemts asks the telemts that were adopted who is online: their sessions go on, and the others
// of the daemon before end.
func (a *Agent) knowTelemts(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, restoreWait)
	defer cancel()
	a.mtproto.Collect(asking)
	a.inbox.telemtsKnown()
}

// applyPending applies the document that Core wanted last, where it did not run as a whole:
// its parts that can be had are served again, without asking Core.
func (a *Agent) applyPending(ctx context.Context) {
	history, err := a.store.History()
	if err != nil || history.Pending == nil || history.Unconfirmed {
		return // restore has reported the error
	}
	body, err := history.Pending.Body.Unpack()
	if err != nil {
		a.reporter.Failed(wire.CodeStoreFailed, "read the configuration that Core wants: "+err.Error(), nil)
		return
	}
	if next := a.tryApply(ctx, body, history.Pending.ETag); next != nil {
		a.refuse(next)
	}
}

// restore brings the engines to the last good configuration, as far as that can be done,
// without asking Core.
func (a *Agent) restore(ctx context.Context) {
	ahead := a.ahead
	a.ahead = nil // it takes much memory, whether it is used or not
	history, err := a.store.History()
	if err == nil && history.Current == nil && history.Narrow && history.Pending == nil {
		err = errors.New("it was damaged in the state file")
	}
	if err == nil && history.Current == nil {
		a.log.Info("no configuration yet; waiting for Core")
		return
	}
	var kept keptDocument
	if err == nil {
		history, kept, err = a.readKept(history, ahead)
	}
	d := kept.desired
	a.applying.Lock()
	defer a.applying.Unlock()
	var inUse slotSet
	if err == nil {
		inUse, err = a.assignAgainLocked(d)
	}
	if err != nil {
		a.troubles.note(troubleRestore, err)
		a.log.Error("read the last good configuration; waiting for one from Core", logkey.Error, err)
		a.reporter.Failed(wire.CodeStoreFailed, "read the last good configuration: "+err.Error(), nil)
		return
	}
	a.runsLocked(d, inUse)
	a.settles, a.parsed = d.settles(), kept.parsed
	if a.adopted.Workers == 0 {
		a.releaseUnusedLocked()
	} // otherwise a worker may count to them: it tells when it does no longer
	config := history.Current
	if !history.Unconfirmed && !history.Narrow { // otherwise heartbeats name no revision, and Core sends its own
		a.sync.setRunningHash(config.Revision, config.ETag, kept.hash)
	}
	// In parallel: an engine that takes long must not delay the other.
	var mtprotoErr error
	var other sync.WaitGroup
	other.Go(func() { mtprotoErr = a.mtproto.Restore(ctx, d.mtproto) })
	err = a.xray.Restore(ctx, d.xray)
	other.Wait()
	if err := errors.Join(err, mtprotoErr); err != nil {
		a.log.Error("parts of the last good configuration are not served; trying again", logkey.Revision, config.Revision, logkey.Error, err)
		return
	}
	a.log.Info("the last good configuration is served", logkey.Revision, config.Revision, logkey.Inbounds, d.inbounds(), logkey.Clients, d.clients())
	if kept.size > 0 {
		a.keepParsedLocked()
	}
}

// keptDocument is the document of the current configuration, as restore reads it.
type keptDocument struct {
	desired
	hash [sha256.Size]byte // of its text
	// size is that of its text in bytes. It is 0 where the text did not have to be parsed; parsed is then
	// the key of the parsed form.
	size   int
	parsed store.ParsedKey
}

// readKept reads the current configuration of a history: as it was parsed before, or else its
// document. after is the history without changes.
func (a *Agent) readKept(history store.History, ahead *Ahead) (after store.History, kept keptDocument, err error) {
	if kept, ok := a.keptParsed(history, ahead); ok {
		return history, kept, nil
	}
	history, body, err := a.withChanges(history, false)
	if err != nil {
		return history, kept, err
	}
	kept.hash, kept.size = sha256.Sum256(body), len(body)
	kept.desired, err = parseKept(history, body)
	if errors.Is(err, errNotNarrowed) { // to serve nobody would be worse
		a.log.Error("clients that were removed lately may be served", logkey.Error, err)
		a.reporter.Failed(wire.CodeStoreFailed, err.Error(), nil)
		err = nil
	}
	return history, kept, err
}

// withChanges returns the history without changes, and the document of the current configuration
// with them: see settled. Where they can't be applied, it is without them, and without the clients
// that they have removed.
func (a *Agent) withChanges(history store.History, pack bool) (store.History, []byte, error) {
	after, body, err := settled(history, pack)
	if err == nil || len(history.Changes) == 0 {
		return after, body, err
	}
	a.log.Error("apply the stored changes of the configuration; it is taken without them", logkey.Error, err)
	a.reporter.Failed(wire.CodeStoreFailed, "apply the stored changes of the configuration: "+err.Error(), nil)
	history.Changes, history.Narrow = nil, true
	return settled(history, pack)
}

// parseKept parses the current configuration of the store, whose document is body.
// Where a newer configuration was given up for it, the result differs from the text: see
// withdraw. Where a newer one may have been damaged, it has only the clients that were let in
// last; errNotNarrowed tells that these are not known, and d has all of them.
func parseKept(history store.History, body []byte) (desired, error) {
	d, unread, err := parseConfig(body)
	if err != nil {
		return d, err
	}
	// A part that ran and cannot be read any more is left out: an older version took it.
	d, err = newProposal(d, desired{}, unread).desired()
	if err != nil {
		return d, err
	}
	if err := d.adaptTo(history); err != nil {
		return d, err
	}
	if history.Narrow {
		err = d.narrow(history.Admitted)
	}
	return d, err
}

// CheckKept returns why a daemon could not restore what the store has; nil where it can, or where
// there is nothing yet.
func CheckKept(history store.History) error {
	if history.Current == nil {
		return nil
	}
	history, body, err := settled(history, false)
	if err == nil {
		_, err = parseKept(history, body)
	}
	return err
}

// adaptTo takes the clients out of d that a newer document of the history lets in no longer.
func (d *desired) adaptTo(history store.History) error {
	newer, err := parsePacked(history.GivenUp)
	if err != nil {
		return err
	}
	if newer != nil {
		return d.withdraw(*newer)
	}
	held, err := parsePacked(history.PendingBody())
	if err == nil && held != nil {
		err = d.removeClients(*held)
	}
	return err
}

// parsePacked parses a stored document, nil for none. Of a document that cannot be parsed it
// returns what says who is let in.
func parsePacked(packed store.Packed) (*desired, error) {
	if packed == nil {
		return nil, nil //nolint:nilnil // there is no document
	}
	body, err := packed.Unpack()
	if err != nil {
		return nil, err
	}
	d, _, err := parseConfig(body)
	if err != nil && d.clientMap.missing() {
		return nil, err
	}
	return &d, nil
}

// removeClients removes the clients that newer lets in no longer.
func (d *desired) removeClients(newer desired) (err error) {
	d.xray.Inbounds = maps.Clone(d.xray.Inbounds)
	for tag, in := range d.xray.Inbounds {
		if d.xray.Inbounds[tag], err = in.Without(removedIn(in, newer)); err != nil {
			return err
		}
	}
	d.mtproto.Inbounds = slices.Clone(d.mtproto.Inbounds)
	for i := range d.mtproto.Inbounds {
		d.mtproto.Inbounds[i].Clients = slices.Clone(d.mtproto.Inbounds[i].Clients)
	}
	d.removeMTProtoClients(newer)
	return nil
}

// withdraw adapts d to a newer configuration that was given up, because the worker crashed
// under it. The crash is no reason to let removed clients in again: d loses the clients that
// newer does not have, or has with another credential. The MTProto part did not crash, so d
// gets newer's. Only where that uses a port of d's Xray part, d keeps its own MTProto part,
// without the removed clients.
func (d *desired) withdraw(newer desired) (err error) {
	for tag, in := range d.xray.Inbounds {
		if d.xray.Inbounds[tag], err = in.Without(removedIn(in, newer)); err != nil {
			return err
		}
	}
	if takesPort(d.xray, newer.mtproto) {
		d.removeMTProtoClients(newer)
		return nil
	}
	d.mtproto, d.mtprotoClients = newer.mtproto, newer.mtprotoClients
	return nil
}

// differs reports whether d, which is other without some clients, lacks any.
func (d *desired) differs(other desired) bool {
	if d.clients() != other.clients() {
		return true
	}
	for tag, in := range d.xray.Inbounds { // accounts of no client are in Config alone
		if !bytes.Equal(in.Config, other.xray.Inbounds[tag].Config) {
			return true
		}
	}
	return false
}

// loses reports whether newer may let a client of d in no longer. It is cheap where newer has
// all clients of d.
func (d *desired) loses(newer desired) bool {
	for tag, in := range d.xray.Inbounds {
		now, stays := newer.xray.Inbounds[tag]
		hasAccounts := state.Protocols[in.Protocol].AccountsAt() != ""
		switch {
		case stays && in.Clients.AreIn(now.Clients) && (!hasAccounts || bytes.Equal(in.Config, now.Config)):
		case hasAccounts || slices.ContainsFunc(in.Clients, removedIn(in, newer)):
			return true
		}
	}
	without := desired{mtproto: service.Service{Inbounds: slices.Clone(d.mtproto.Inbounds)}}
	for i, in := range without.mtproto.Inbounds {
		without.mtproto.Inbounds[i].Clients = slices.Clone(in.Clients)
	}
	without.removeMTProtoClients(newer)
	return without.mtproto.Clients() < d.mtproto.Clients()
}

// removeMTProtoClients removes the MTProto clients that newer lets in no longer. It changes the
// inbounds of d in place.
func (d *desired) removeMTProtoClients(newer desired) {
	secrets := map[string]string{} // by client; Core gives a client one secret for all inbounds
	for _, in := range newer.mtproto.Inbounds {
		for _, c := range in.Clients {
			secrets[c.ID] = c.Secret
		}
	}
	for i := range d.mtproto.Inbounds {
		in := &d.mtproto.Inbounds[i]
		in.Clients = slices.DeleteFunc(in.Clients, newer.mtprotoRemoved(in.Tag, secrets))
	}
}

// mtprotoRemoved returns a function that tells whether newer lets a client of an MTProto
// inbound in no longer. Where newer has no such inbound, or its clients could not be read, the
// client's secret on any other inbound decides, and then the client map.
func (newer *desired) mtprotoRemoved(tag string, secrets map[string]string) func(service.Client) bool {
	now, stays := newer.mtprotoUnreadable[tag]
	for _, in := range newer.mtproto.Inbounds {
		if in.Tag == tag {
			now, stays = in, true
		}
	}
	if !stays {
		return func(c service.Client) bool {
			if secret, known := secrets[c.ID]; known {
				return secret != c.Secret
			}
			return !newer.clientMap.has(c.ID)
		}
	}
	byID := make(map[string]string, len(now.Clients))
	for _, c := range now.Clients {
		byID[c.ID] = c.Secret
	}
	return func(c service.Client) bool { return byID[c.ID] != c.Secret }
}

// removedIn returns a function that tells whether newer lets a client of the inbound in no
// longer. Where newer has no such inbound, the client map of newer decides.
func removedIn(in state.Inbound, newer desired) func(*state.Client) bool {
	now, stays := newer.xray.Inbounds[in.Tag]
	if !stays {
		now, stays = newer.unreadable[in.Tag]
	}
	if !stays {
		return func(c *state.Client) bool {
			return !newer.clientMap.has(c.Key)
		}
	}
	byKey := make(map[string]*state.Client, len(now.Clients))
	for _, c := range now.Clients {
		byKey[c.Key] = c
	}
	return func(c *state.Client) bool {
		if c.Key == "" { // an account that belongs to no client
			return !now.HasAccount(c.Account)
		}
		still, is := byKey[c.Key]
		return !is || !c.SameCredential(still)
	}
}
