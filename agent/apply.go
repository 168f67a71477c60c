package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	jsonv1 "github.com/go-json-experiment/json/v1"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/xray/ipc"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// invalidConfig means that a configuration is wrong in itself.
type invalidConfig struct {
	revision int64
	err      error
}

func (e *invalidConfig) Error() string { return e.err.Error() }
func (e *invalidConfig) Unwrap() error { return e.err }

// isFinal tells whether applying the same configuration again is no use.
func isFinal(err error) bool {
	if _, ok := errors.AsType[*invalidConfig](err); ok {
		return true
	}
	if _, ok := errors.AsType[*state.InvalidError](err); ok {
		return true
	}
	failure, ok := errors.AsType[*ipc.OperationError](err)
	return ok && failure.Code == ipc.FailureInvalid
}

// desired is a configuration as the engines read it.
type desired struct {
	config wire.NodeConfig
	xray   state.State
	telemt telemt.Service
	owners []store.Owner // of every slot that the states need
}

// parse reads a NodeConfig. An error says what in it is wrong.
func parseConfig(body []byte) (desired, error) {
	var d desired
	// A wire.NodeConfig that tells what is absent. Something between may answer 200
	// with JSON of its own; taken for a configuration, it would cut everybody.
	var config struct {
		Revision  *int64                    `json:"revision"`
		ClientMap map[string]wire.ClientRef `json:"clientMap"`
		Services  *wire.Services            `json:"services"`
	}
	err := jsonv1.Unmarshal(body, &config)
	if config.Revision != nil {
		d.config.Revision = *config.Revision // to be named with what is wrong
	}
	if wrong, ok := errors.AsType[*jsonv1.UnmarshalTypeError](err); ok {
		// Its whole path has keys of the client map, with which clients connect.
		member, _, _ := strings.Cut(wrong.Field, ".")
		return d, fmt.Errorf("read the configuration: in %s there is a JSON %s, want one for %s", member, wrong.Value, wrong.Type)
	}
	if err != nil {
		return d, fmt.Errorf("read the configuration: %w", err)
	}
	if config.Revision == nil || config.Services == nil {
		return d, errors.New("read the configuration: it has no revision or no services, so it is not Core's; what answers at Core's address?")
	}
	d.config = wire.NodeConfig{Revision: *config.Revision, ClientMap: config.ClientMap, Services: *config.Services}
	if d.config.Services.Xray != nil {
		if d.xray, err = parse.Service(d.config.Services.Xray, func(key string) bool {
			_, known := d.config.ClientMap[key]
			return known
		}); err != nil {
			return d, err
		}
	}
	if d.config.Services.MTProto != nil {
		if d.telemt, err = telemt.Parse(d.config.Services.MTProto); err != nil {
			return d, err
		}
	}
	d.owners = append(d.xrayOwners(), d.telemtOwners()...)
	return d, nil
}

// apply makes body the running configuration, or leaves everything as it was,
// and tells Core which.
func (a *Agent) apply(ctx context.Context, body []byte, etag string) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	d, err := parseConfig(body)
	if err != nil {
		if d.config.Revision != 0 {
			a.sync.want(d.config.Revision)
		}
		err = &invalidConfig{revision: d.config.Revision, err: err}
		a.applyFailed(d.config.Revision, err)
		return err
	}
	a.sync.want(d.config.Revision)
	inUse, err := a.assign(d)
	if err == nil {
		// While both states may run, no slot of either is given back.
		before := a.inUse
		a.inUse = union(before, inUse)
		if err = a.reach(ctx, d); err != nil {
			a.inUse = before
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			a.applyFailed(d.config.Revision, err)
		}
		return err
	}
	a.inUse, a.running = inUse, d
	a.forgetClosed(inUse)
	config := store.Config{Revision: d.config.Revision, ETag: etag, Body: body, KeepPrevious: !a.crashes.proved(time.Now())}
	if err := a.store.Commit(time.Now(), a.sources(), config, d.owners); err != nil {
		// It runs, and it is not kept: the next try finds nothing to change
		// and commits again.
		a.applyFailed(d.config.Revision, err)
		return err
	}
	a.sync.ran(d.config.Revision, etag, body)
	a.crashes.applied(time.Now())
	a.log.Info("configuration applied", "revision", d.config.Revision, "inbounds", d.inbounds(), "clients", d.clients())
	a.reporter.applied(d.config.Revision)
	a.reportUntied(d)
	giveBack(body)
	return nil
}

// largeBody is from how many bytes on reading a configuration leaves enough behind to
// be worth a garbage collection of its own.
const largeBody = 1 << 20

// giveBack returns to the host, soon, what reading the configuration took: with a
// hundred thousand clients that is several times what they need.
func giveBack(body []byte) {
	if len(body) >= largeBody {
		go debug.FreeOSMemory()
	}
}

// reach brings both engines to the configuration, or neither. The one whose port
// the other one takes over comes first.
func (a *Agent) reach(ctx context.Context, d desired) error {
	xrayStep := func(ctx context.Context, d desired) error { return a.xray.Apply(ctx, d.xray) }
	mtprotoStep := func(ctx context.Context, d desired) error { return a.mtproto.Apply(ctx, d.telemt) }
	first, second := xrayStep, mtprotoStep
	if takesPort(d.xray, a.running.telemt) {
		first, second = mtprotoStep, xrayStep
	}
	if err := first(ctx, d); err != nil {
		return err
	}
	err := second(ctx, d)
	if err == nil {
		return nil
	}
	// The way back is not given up with the way there.
	if back := first(context.WithoutCancel(ctx), a.running); back != nil {
		err = errors.Join(err, fmt.Errorf("go back to the configuration before: %w", back))
	}
	return err
}

// takesPort tells whether Xray is to listen on a port that an MTProto inbound has.
func takesPort(next state.State, running telemt.Service) bool {
	for _, in := range next.Inbounds {
		bindings, err := in.Bindings()
		if err != nil {
			return false // Xray's step says what is wrong
		}
		for _, b := range bindings {
			if b.Network == "tcp" && slices.ContainsFunc(running.Inbounds, func(m telemt.Inbound) bool { return m.Port == b.Port }) {
				return true
			}
		}
	}
	return false
}

func (d *desired) inbounds() int { return len(d.xray.Inbounds) + len(d.telemt.Inbounds) }
func (d *desired) clients() int  { return d.xray.Clients() + d.telemt.Clients() }

// forgetClosed drops what was closed before its client came back: it is counted
// to again, and another word will say when not.
func (a *Agent) forgetClosed(inUse map[uint32]bool) {
	a.closedMu.Lock()
	defer a.closedMu.Unlock()
	a.closed = slices.DeleteFunc(a.closed, func(slot uint32) bool { return inUse[slot] })
}

// restoring bounds how long the start waits for the last good configuration.
const restoring = 5 * time.Second

// startRestoring brings the engines to the last good configuration, and returns
// when they are there, or after a while without them: heartbeats and reports
// must not wait for a worker that does not come up.
func (a *Agent) startRestoring(ctx context.Context, loops *sync.WaitGroup) {
	restored := make(chan struct{})
	loops.Go(func() {
		defer close(restored)
		a.restore(ctx)
	})
	timer := time.NewTimer(restoring)
	defer timer.Stop()
	select {
	case <-restored:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// restore brings the engines to the last good configuration, without Core.
func (a *Agent) restore(ctx context.Context) {
	config, found, err := a.store.Config()
	if !found && err == nil {
		a.log.Info("no configuration yet; waiting for Core")
		return
	}
	var d desired
	if err == nil {
		d, err = parseKept(config)
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	var inUse map[uint32]bool
	if err == nil {
		inUse, err = a.assign(d)
	}
	if err != nil {
		a.log.Error("read the last good configuration; asking Core for one", "error", err)
		a.reporter.failed(wire.CodeStoreFailed, "read the last good configuration: "+err.Error(), nil)
		return
	}
	a.inUse, a.running = inUse, d
	a.releaseUnused()
	if !config.Unconfirmed { // else Core is asked for one, whatever its revision
		a.sync.ran(config.Revision, config.ETag, config.Body)
	}
	// At once: an engine that takes long, or fails, must not hold up the other.
	var mtprotoErr error
	var other sync.WaitGroup
	other.Go(func() { mtprotoErr = a.mtproto.Restore(ctx, d.telemt) })
	err = a.xray.Restore(ctx, d.xray)
	other.Wait()
	if err := errors.Join(err, mtprotoErr); err != nil {
		a.log.Error("parts of the last good configuration do not run; trying again", "revision", config.Revision, "error", err)
		return
	}
	giveBack(config.Body)
	a.log.Info("last good configuration runs", "revision", config.Revision, "inbounds", d.inbounds(), "clients", d.clients())
}

// releaseUnused gives back, at the start, the slots that the configuration does
// not name: nothing counts yet.
func (a *Agent) releaseUnused() {
	var unused []uint32
	for _, slot := range a.store.Slots() {
		if !a.inUse[slot] {
			unused = append(unused, slot)
		}
	}
	if err := a.store.Release(time.Now(), a.sources(), unused); err != nil {
		a.log.Error("give back counter slots", "error", err)
	}
}

func (a *Agent) applyFailed(revision int64, err error) {
	code, tag, port := wire.CodeConfigApplyFailed, "", uint16(0)
	if failure, ok := errors.AsType[*ipc.OperationError](err); ok {
		tag, port = failure.Tag, failure.Port
		switch failure.Code {
		case ipc.FailurePortInUse:
			code = wire.CodePortInUse
		case ipc.FailureInvalid:
			code = wire.CodeConfigInvalid
		case ipc.FailureOther:
		}
	}
	if invalid, ok := errors.AsType[*state.InvalidError](err); ok {
		code, tag = wire.CodeConfigInvalid, invalid.Tag
	} else if invalid, ok := errors.AsType[*telemt.InvalidError](err); ok {
		code, tag = wire.CodeConfigInvalid, invalid.Tag
	} else if failure, ok := errors.AsType[*telemt.ApplyError](err); ok {
		code, tag, port = mtprotoCode(failure.Code), failure.Tag, failure.Port
	} else if isFinal(err) {
		code = wire.CodeConfigInvalid
	}
	a.log.Error("configuration refused; the one before goes on", "revision", revision, "code", code, "tag", tag, "error", err)
	a.reporter.failed(code, fmt.Sprintf("revision %d: %v", revision, err), a.failureDetails(&revision, tag, port))
}

// failureDetails are what Core is told of a failure beside its words: the place,
// and what is not wise in the configuration that runs.
func (a *Agent) failureDetails(revision *int64, tag string, port uint16) map[string]any {
	details := map[string]any{}
	if revision != nil {
		details["revision"] = *revision
	}
	if tag != "" {
		details["tag"] = tag
	}
	if port != 0 {
		details["port"] = port
	}
	if warnings := a.xray.Status().Warnings; len(warnings) > 0 {
		details["warnings"] = warnings
	}
	return details
}

// reportUntied names, once a revision, clients whose traffic belongs to nobody.
func (a *Agent) reportUntied(d desired) {
	byTag := map[string]int{}
	for _, in := range d.xray.Inbounds {
		for _, client := range in.Clients {
			if !client.Tied {
				byTag[in.Tag]++
			}
		}
	}
	for _, in := range d.telemt.Inbounds {
		for _, client := range in.Clients {
			if _, tied := d.config.ClientMap[client.ID]; !tied {
				byTag[in.Tag]++
			}
		}
	}
	if len(byTag) == 0 {
		return
	}
	a.log.Warn("clients are in no client map: served, but their traffic is counted under the outbounds alone", "by_inbound", byTag)
	a.reporter.noted(fmt.Errorf("revision %d: clients in no client map, by inbound: %v", d.config.Revision, byTag))
}

func union(a, b map[uint32]bool) map[uint32]bool {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}
