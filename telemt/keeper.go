package telemt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

const (
	backoffMin    = time.Second
	backoffMax    = time.Minute
	healthyUptime = time.Minute
	// missingWait is how often a missing telemt is looked for, in addition to the watch
	// on the folder in which it would be.
	missingWait = 10 * time.Second
)

// keeper keeps the telemt of one inbound running as it is desired. Its goroutine is run.
// The fields above mu belong to that goroutine; other goroutines use do.
//
// It is in one of these states:
//
//	process  retryAt
//	set      zero     telemt runs
//	set      set      telemt runs something else than desired: change it again at retryAt
//	nil      set      telemt does not run: start it at retryAt
//	nil      zero     nothing runs for the moment, during a change of several inbounds
type keeper struct {
	// These never change.
	tag    string
	config Config // but for what tuning has
	tuning *tuning
	deps   Deps
	binary *process.Binary
	log    *slog.Logger
	folder process.Folder
	calls  chan func()
	done   chan struct{}   // closed when run returns
	life   context.Context // ends with the keeper
	cancel context.CancelFunc

	desired service.Desired
	// running is what process runs, or ran if it is nil. It is empty before the first
	// start, and after a start has failed.
	running service.Desired
	process *process.Process // nil if none runs
	retryAt time.Time        // when to start or change process again; zero for never
	backoff supervise.Backoff
	traffic *traffic

	// uncertain is true if process may run something else than running, because a change
	// failed and the way back failed too.
	uncertain bool
	// acceptedAccess is the table "access" that process has applied; nil if that is not
	// known.
	acceptedAccess any
	fileTables     map[string]any       // content of the file that was written last
	fileText       []byte               // its text
	writeCount     int                  // how often the file was written
	disabledSince  map[string]time.Time // removed users, which the file has as disabled

	used          map[string]uint64 // bytes of both directions that count for quotas, by the user's name
	shut          []string          // what shutOut returned for the file that telemt has taken
	expiresAt     time.Time         // when to end the sessions of the next client whose time is over; zero for never
	silentSince   time.Time         // since when the counters can't be read; zero if they can
	replacedSince time.Time         // since when another telemt is installed; zero if none is
	staleSince    time.Time         // since when the running telemt waits for a restart to take its whole file; zero for never
	upgradeDue    bool              // it is time to restart, for either of the two reasons

	// mu guards the fields below. No other lock is taken under it.
	mu       sync.Mutex
	status   InboundStatus
	retrying bool             // a start is tried again after it had failed
	pending  *service.Desired // what an apply asked for during that; nil for nothing
}

func newKeeper(life context.Context, tag string, config Config, tuning *tuning, deps Deps, b *process.Binary) *keeper {
	k := &keeper{
		tag: tag, config: config, tuning: tuning, deps: deps, binary: b, log: deps.Log.With(logkey.Tag, tag),
		folder: process.FolderOf(config.StateDir, tag), calls: make(chan func()), done: make(chan struct{}),
		traffic: newTraffic(deps), disabledSince: map[string]time.Time{},
		backoff: supervise.Backoff{Min: backoffMin, Max: backoffMax, Healthy: healthyUptime},
		status:  InboundStatus{Tag: tag, State: StateStarting},
	}
	k.life, k.cancel = context.WithCancel(life)
	k.used = k.folder.ReadUsed()
	if k.adoptable() {
		k.traffic.keep = k.noteRecord
	}
	return k
}

// run serves until life ends, and then stops telemt, or leaves it to the next daemon.
func (k *keeper) run() {
	defer close(k.done)
	for {
		var exited <-chan struct{}
		if k.process != nil {
			exited = k.process.Done()
		}
		var retry <-chan time.Time
		if !k.retryAt.IsZero() {
			retry = time.After(time.Until(k.retryAt))
		}
		var expires <-chan time.Time
		if k.process != nil && !k.expiresAt.IsZero() {
			// The moment is one of the wall clock, which can be set while a timer runs.
			expires = time.After(min(time.Until(k.expiresAt.Round(0)), clockLook))
		}
		var grants <-chan time.Time
		if k.hasGrants() {
			grants = time.After(grantsEvery)
		}
		select {
		case <-k.life.Done():
			if !k.adoptable() || !errors.Is(context.Cause(k.life), supervise.ErrLeave) {
				k.stop()
			} else if k.process != nil {
				k.process.Leave()
			}
			return
		case <-grants:
			k.enforceGrants()
		case <-expires:
			if !time.Now().Before(k.expiresAt.Round(0)) {
				k.endExpired()
			}
		case call := <-k.calls:
			call()
		case <-exited:
			k.handleExit()
		case <-retry:
			k.retry()
		}
		if k.upgradeDue && k.process != nil {
			k.restartUpgraded()
		}
	}
}

// do calls the function on the keeper's goroutine and waits for its result. If the keeper
// has ended, the error is context.Canceled. ctx limits only how long the call waits for
// its turn.
func (k *keeper) do(ctx context.Context, call func() error) error {
	result := make(chan error, 1)
	select {
	case k.calls <- func() { result <- call() }:
	case <-k.done:
		return context.Canceled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-result:
		return err
	case <-k.done:
		return context.Canceled
	}
}

// apply brings the inbound to another state, or leaves it as it was and returns an error.
// An inbound that did not run before is no error, nor is a new one without an installed
// telemt: such an inbound must not stop the change of the others. It may be called from
// any goroutine.
func (k *keeper) apply(ctx context.Context, to service.Desired) error {
	k.mu.Lock()
	if k.retrying { // this can take the whole StartTimeout
		k.pending = &to
		k.mu.Unlock()
		return nil
	}
	k.mu.Unlock()
	return k.do(ctx, func() error {
		before, isNew := k.desired, k.desired.Inbound.Tag == ""
		k.desired = to
		err := k.changeOrStart(ctx, to, isNew)
		if err == nil {
			return nil
		}
		k.desired = before
		switch {
		case isNew || k.process != nil || k.life.Err() != nil:
		case ctx.Err() != nil: // the caller gave up; that says nothing about the inbound
			k.retryAt = time.Now()
		default:
			k.retryLater(err)
		}
		return err
	})
}

func (k *keeper) changeOrStart(ctx context.Context, to service.Desired, isNew bool) error {
	switch {
	case k.process != nil:
		return k.change(ctx, to)
	case isNew:
		err := k.start(ctx, to)
		if _, missing := errors.AsType[*process.MissingError](err); missing && ctx.Err() == nil {
			k.adoptClients(to)
			k.retrySoon(err) // the caller sees it in the status
			return nil
		}
		return err
	case k.running.Inbound.Tag != "": // it ran before, so that a failure is the fault of the change
		err := k.start(ctx, to)
		if err == nil {
			return nil
		}
		back, cancel := rollbackContext(ctx, k.life)
		defer cancel()
		return errors.Join(err, backError(k.start(back, k.running)))
	}
	k.adoptClients(to)
	k.retryAt = time.Now()
	return nil
}

// adoptClients takes over the clients of an inbound that does not run, and closes the
// slots of its removed clients.
func (k *keeper) adoptClients(to service.Desired) {
	k.traffic.setClients(to.Inbound)
	k.traffic.processEnded(time.Now())
}

// revert brings the inbound back to an earlier state. If that fails, it is tried again
// later.
func (k *keeper) revert(ctx context.Context, to service.Desired) error {
	k.desired = to
	var err error
	if k.process != nil {
		err = k.change(ctx, to)
	} else {
		err = k.start(ctx, to)
	}
	switch _, rejected := errors.AsType[*service.ApplyError](err); {
	case err == nil || k.process == nil:
	case rejected:
		k.stop()
	default: // telemt serves, but not what it should; the disk may be full, for example
		k.uncertain, k.retryAt = true, time.Now().Add(backoffMin)
	}
	if k.process == nil && k.life.Err() == nil {
		k.adoptClients(to)
		k.retryLater(err)
	}
	return err
}

// restore goes on with the telemt that left is the process id of, or starts one soon after. If that
// fails, it is reported and tried again.
func (k *keeper) restore(to service.Desired, left int) error {
	k.desired = to
	if left > 0 {
		err := k.adopt(left)
		if err == nil {
			return nil
		}
		k.log.Warn("the telemt of the daemon before can't go on; it is replaced", logkey.PID, left, logkey.Error, err)
		process.End(left, k.folder)
	}
	k.traffic.setClients(to.Inbound)
	k.retryAt = time.Now()
	return nil
}

// start starts telemt. Its file has no removed users.
func (k *keeper) start(ctx context.Context, to service.Desired) error {
	k.retryAt = time.Time{}
	release, err := k.binary.Find(ctx)
	if err != nil {
		return err
	}
	if err := k.folder.Make(); err != nil {
		return err
	}
	k.publish(StateStarting, "")
	clear(k.disabledSince)
	ctx, cancel := context.WithTimeoutCause(ctx, k.config.StartTimeout, fmt.Errorf("no answer within %s", k.config.StartTimeout))
	defer cancel()
	p, err := process.Start(ctx, process.Spec{
		Release: release, Folder: k.folder, Desired: to, Alone: !k.adoptable(),
		Starting: func(settings service.NodeSettings) { k.beginRecord(release, settings, to) },
		Render: func(settings service.NodeSettings) ([]byte, error) {
			settings.Disabled = k.shutOut(to.Inbound)
			k.shut = settings.Disabled
			text, err := k.render(to, settings)
			k.fileText = text
			return text, err
		},
	}, k.log)
	if err != nil {
		return err
	}
	k.process, k.running, k.uncertain = p, to, false
	k.silentSince, k.replacedSince, k.staleSince, k.upgradeDue = time.Time{}, time.Time{}, time.Time{}, false
	written := p.Settings
	written.Disabled = k.shut
	k.fileTables = to.Configuration(written)
	k.acceptedAccess = k.fileTables["access"]
	k.traffic.setClients(to.Inbound)
	k.expiresAt = service.NextExpiry(to.Inbound, time.Now())
	k.publish(StateReady, "")
	if text := process.ReleaseWarning(release.Version[1:]); text != "" {
		k.log.Warn("this telemt should be replaced", logkey.Reason, text)
	}
	k.log.Info("telemt serves", logkey.PID, p.PID(), logkey.Version, release.Version, logkey.Port, to.Inbound.Port, logkey.Clients, len(to.Inbound.Clients))
	return nil
}

// endExpired ends the sessions of clients whose time is over.
func (k *keeper) endExpired() {
	err := k.applyLive(k.life, k.running.Inbound, k.running)
	k.expiresAt = service.NextExpiry(k.running.Inbound, time.Now())
	if err != nil && k.life.Err() == nil {
		k.log.Error("end the sessions of a client whose time is over; trying again", logkey.Error, err)
		k.expiresAt = time.Now().Add(backoffMin)
	}
}

// stop stops telemt, if it runs, and reads its counters until it has ended.
func (k *keeper) stop() {
	if k.process == nil {
		return
	}
	k.process.Stop(context.WithoutCancel(k.life), k.traffic.add)
	k.countUsed()
	k.process = nil
	k.traffic.processEnded(time.Now())
}

// remove stops telemt for good and closes the slots of all clients.
func (k *keeper) remove() error {
	k.retryAt = time.Time{}
	k.stop()
	k.traffic.inboundRemoved(time.Now())
	return nil
}

// publish sets the inbound's status. problem is why it is degraded or failed.
func (k *keeper) publish(state State, problem string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.status.State == StateReady && state == StateDegraded {
		k.log.Warn("an mtproto inbound is degraded", logkey.Problem, problem)
	}
	k.status.State, k.status.Error, k.status.Missing = state, problem, false
	k.status.Port, k.status.Clients = k.desired.Inbound.Port, len(k.desired.Inbound.Clients)
	k.status.StaleUntil = time.Time{}
	if !k.staleSince.IsZero() && k.process != nil {
		k.status.StaleUntil = k.staleSince.Add(time.Duration(k.tuning.upgradeWithin.Load()))
	}
	k.status.BuiltInDomain = k.desired.Inbound.Modes.TLS && len(k.desired.Inbound.TLSDomains) == 0
	k.status.PID, k.status.Version, k.status.StartedAt = 0, "", time.Time{}
	if k.process != nil {
		k.status.PID, k.status.Version, k.status.StartedAt = k.process.PID(), k.process.Release.Version[1:], k.process.Started.UTC()
	}
}

// snapshot returns the inbound's status. It may be called from any goroutine.
func (k *keeper) snapshot() InboundStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}
