package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/store"
	"nodeagent/telemt/service"
	"nodeagent/xray/state"
)

// restoreWait bounds how long the start waits for the last good configuration.
const restoreWait = 5 * time.Second

// startRestoring brings the engines to the last good configuration, and returns
// when they are there, or after a while without them: heartbeats and reports
// must not wait for a worker that does not come up.
func (a *Agent) startRestoring(ctx context.Context, loops *sync.WaitGroup) {
	restored := make(chan struct{})
	loops.Go(func() {
		defer close(restored)
		a.restore(ctx)
	})
	timer := time.NewTimer(restoreWait)
	defer timer.Stop()
	select {
	case <-restored:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// restore brings the engines to the last good configuration, without Core.
func (a *Agent) restore(ctx context.Context) {
	history, err := a.store.History()
	if err == nil && history.Current == nil {
		a.log.Info("no configuration yet; waiting for Core")
		return
	}
	var d desired
	var body []byte
	if err == nil {
		d, body, err = parseKept(history)
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	var inUse map[uint32]bool
	if err == nil {
		_, inUse, err = a.assignLocked(d)
	}
	if err != nil {
		a.log.Error("read the last good configuration; asking Core for one", logkey.Error, err)
		a.reporter.Failed(wire.CodeStoreFailed, "read the last good configuration: "+err.Error(), nil)
		return
	}
	a.inUse, a.running = inUse, d
	a.releaseUnusedLocked()
	config := history.Current
	if !history.Unconfirmed { // else Core is asked for one, whatever its revision
		a.sync.setRunning(config.Revision, config.ETag, body)
	}
	// At once: an engine that takes long, or fails, must not hold up the other.
	var mtprotoErr error
	var other sync.WaitGroup
	other.Go(func() { mtprotoErr = a.mtproto.Restore(ctx, d.mtproto) })
	err = a.xray.Restore(ctx, d.xray)
	other.Wait()
	if err := errors.Join(err, mtprotoErr); err != nil {
		a.log.Error("parts of the last good configuration do not run; trying again", logkey.Revision, config.Revision, logkey.Error, err)
		return
	}
	freeParseMemory(body)
	a.log.Info("last good configuration runs", logkey.Revision, config.Revision, logkey.Inbounds, d.inbounds(), logkey.Clients, d.clients())
}

// parseKept reads the current configuration of the store, and returns its text as Core
// sent it. One that a newer one was given up for has Xray's part as it was, but who is not
// in the newer one stays out, and the newer MTProto part, or its own one where the newer
// takes a port of Xray's.
func parseKept(history store.History) (d desired, body []byte, err error) {
	if body, err = history.Current.Body.Unpack(); err != nil {
		return d, nil, err
	}
	d, err = parseConfig(body)
	if err != nil || history.GivenUp == nil {
		return d, body, err
	}
	newerBody, err := history.GivenUp.Unpack()
	if err != nil {
		return d, nil, err
	}
	newer, err := parseConfig(newerBody)
	if err != nil {
		return d, nil, err
	}
	return d, body, d.withdraw(newer)
}

// withdraw takes out of the configuration who is not in a newer one that was given up.
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

// removeMTProtoClients takes those out of the MTProto inbounds whom a newer configuration
// has not, or not with this secret.
func (d *desired) removeMTProtoClients(newer desired) {
	secrets := map[string]string{} // one for all inbounds, as Core gives them
	for _, in := range newer.mtproto.Inbounds {
		for _, c := range in.Clients {
			secrets[c.ID] = c.Secret
		}
	}
	for i := range d.mtproto.Inbounds {
		in := &d.mtproto.Inbounds[i]
		in.Clients = slices.DeleteFunc(in.Clients, func(c service.Client) bool { return secrets[c.ID] != c.Secret })
	}
}

// removedIn tells the clients of an inbound that a newer configuration does not let in:
// on that inbound, where it still has it, and else anywhere.
func removedIn(in state.Inbound, newer desired) func(state.Client) bool {
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
