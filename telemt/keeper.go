package telemt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/internal/supervise"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

const (
	backoffMin    = time.Second
	backoffMax    = time.Minute
	healthyUptime = time.Minute
	// missingWait is how often a telemt that is not there is looked for, beside
	// the watch on its folder.
	missingWait = 10 * time.Second
)

// keeper keeps one inbound's telemt running as it is wanted. Its members belong
// to its goroutine, run; others send it what to do.
type keeper struct {
	tag    string
	config Config
	deps   Deps
	binary *process.Binary
	log    *slog.Logger
	folder process.Folder
	calls  chan func()
	done   chan struct{}
	life   context.Context // ends with the keeper
	cancel context.CancelFunc

	desired        service.Desired
	running        service.Desired  // what process runs, or the one before it ran; empty once its inbound has failed
	uncertain      bool             // process may run something else, for the way back to running failed
	process        *process.Process // nil where none runs
	acceptedAccess any              // the part of the file that process has taken; nil where nobody knows
	fileTables     map[string]any   // the file as it was written last
	traffic        *traffic
	disabledSince  map[string]time.Time   // users that the file has as disabled, and since when
	writeCount     int                    // of the file
	fileText       atomic.Pointer[[]byte] // its text
	backoff        supervise.Backoff
	retryAt        time.Time // zero for never
	silentSince    time.Time // since when its counters can't be read; zero where they can
	replacedSince  time.Time // since when another telemt lies on the disk; zero for none
	upgradeDue     bool      // it is time to restart into it

	mu       sync.Mutex
	status   InboundStatus
	retrying bool             // an inbound that has failed is being started
	pending  *service.Desired // what came meanwhile
}

func newKeeper(life context.Context, tag string, config Config, deps Deps, b *process.Binary) *keeper {
	k := &keeper{
		tag: tag, config: config, deps: deps, binary: b, log: deps.Log.With("tag", tag),
		folder: process.FolderOf(config.StateDir, tag), calls: make(chan func()), done: make(chan struct{}),
		traffic: newTraffic(deps), disabledSince: map[string]time.Time{},
		backoff: supervise.Backoff{Min: backoffMin, Max: backoffMax, Healthy: healthyUptime},
		status:  InboundStatus{Tag: tag, State: StateStarting},
	}
	k.life, k.cancel = context.WithCancel(life)
	return k
}

// run serves until life ends, and stops telemt then.
func (k *keeper) run() {
	defer close(k.done)
	for {
		var died <-chan struct{}
		if k.process != nil {
			died = k.process.Done()
		}
		var retry <-chan time.Time
		if !k.retryAt.IsZero() {
			retry = time.After(time.Until(k.retryAt))
		}
		select {
		case <-k.life.Done():
			k.stop()
			return
		case do := <-k.calls:
			do()
		case <-died:
			k.handleExit()
		case <-retry:
			k.retry()
		}
		if k.upgradeDue && k.process != nil {
			k.restartUpgraded()
		}
	}
}

// do runs something in the keeper's goroutine and waits for it.
func (k *keeper) do(ctx context.Context, what func() error) error {
	result := make(chan error, 1)
	select {
	case k.calls <- func() { result <- what() }:
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

// apply reaches what is wanted, or leaves everything as it was and says why. An
// inbound that failed before may go on failing, and so may one that no telemt is
// there for: that holds up nobody else.
func (k *keeper) apply(ctx context.Context, to service.Desired) error {
	k.mu.Lock()
	if k.retrying {
		k.pending = &to
		k.mu.Unlock()
		return nil
	}
	k.mu.Unlock()
	return k.do(ctx, func() error {
		before, isNew := k.desired, k.desired.Inbound.Tag == ""
		k.desired = to
		err := k.reach(ctx, to, isNew)
		if err == nil {
			return nil
		}
		k.desired = before
		switch {
		case isNew || k.process != nil || k.life.Err() != nil:
		case ctx.Err() != nil: // nobody's failure: it was given up
			k.retryAt = time.Now()
		default:
			k.retryLater(err)
		}
		return err
	})
}

func (k *keeper) reach(ctx context.Context, to service.Desired, isNew bool) error {
	switch {
	case k.process != nil:
		return k.change(ctx, to)
	case isNew:
		err := k.start(ctx, to)
		if _, missing := errors.AsType[*process.MissingError](err); missing && ctx.Err() == nil {
			k.adoptClients(to)
			k.retryLater(err)
			return nil
		}
		return err
	case k.running.Inbound.Tag != "": // it served until now: what it served tells whose fault a failure is
		err := k.start(ctx, to)
		if err == nil {
			return nil
		}
		back, cancel := rollbackContext(ctx, k.life)
		defer cancel()
		return errors.Join(err, k.start(back, k.running))
	}
	k.adoptClients(to)
	k.retryAt = time.Now()
	return nil
}

// adoptClients takes over the clients of an inbound that does not run.
func (k *keeper) adoptClients(to service.Desired) {
	k.traffic.setClients(to.Inbound)
	k.traffic.processEnded(time.Now())
}

// revert brings the inbound to what was good before, now or later: it gives up
// nothing.
func (k *keeper) revert(ctx context.Context, to service.Desired) error {
	k.desired = to
	var err error
	if k.process != nil {
		err = k.change(ctx, to)
	} else {
		err = k.start(ctx, to)
	}
	switch _, refused := errors.AsType[*service.ApplyError](err); {
	case err == nil || k.process == nil:
	case refused:
		k.stop()
	default: // it serves, and not as it should: a full disk, say
		k.uncertain, k.retryAt = true, time.Now().Add(backoffMin)
	}
	if k.process == nil && k.life.Err() == nil {
		k.adoptClients(to)
		k.retryLater(err)
	}
	return err
}

// restore starts what is wanted, in its own time; what fails is told and tried
// again.
func (k *keeper) restore(to service.Desired) error {
	k.desired = to
	k.traffic.setClients(to.Inbound)
	k.retryAt = time.Now()
	return nil
}

// start starts telemt, with no user of the past in its file.
func (k *keeper) start(ctx context.Context, to service.Desired) error {
	k.retryAt = time.Time{}
	r, err := k.binary.Find(ctx)
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
		Release: r, Folder: k.folder, Desired: to,
		Render: func(settings service.NodeSettings) ([]byte, error) {
			config, err := k.render(to, settings)
			k.fileText.Store(&config)
			return config, err
		},
	}, k.log)
	if err != nil {
		return err
	}
	k.process, k.running, k.uncertain, k.silentSince, k.replacedSince, k.upgradeDue = p, to, false, time.Time{}, time.Time{}, false
	k.fileTables = to.Configuration(p.Settings)
	k.acceptedAccess = k.fileTables["access"]
	k.traffic.setClients(to.Inbound)
	k.publish(StateReady, "")
	k.log.Info("telemt serves", "pid", p.PID(), "version", r.Version, "port", to.Inbound.Port, "clients", len(to.Inbound.Clients))
	return nil
}

// stop stops telemt, its counters read to the end.
func (k *keeper) stop() {
	if k.process == nil {
		return
	}
	k.process.Stop(context.WithoutCancel(k.life), k.traffic.add)
	k.process = nil
	k.traffic.processEnded(time.Now())
}

// remove ends telemt and all that the inbound had.
func (k *keeper) remove() error {
	k.retryAt = time.Time{}
	k.stop()
	k.traffic.inboundRemoved(time.Now())
	return nil
}

// handleExit starts a telemt that ended by itself again.
func (k *keeper) handleExit() {
	dead := k.process
	k.process = nil
	k.traffic.processEnded(time.Now())
	reason := "exit status 0"
	if err := dead.Err(); err != nil {
		reason = err.Error()
	}
	wait := k.backoff.Next(time.Since(dead.Started))
	k.log.Error("telemt ended; starting it again", "pid", dead.PID(), "reason", reason, "words", dead.Output.ExitReason(), "in", wait)
	k.deps.Failed(service.Failure{Code: service.FailureCrash, Tag: k.tag, Port: k.desired.Inbound.Port, Message: fmt.Sprintf("mtproto inbound %q: telemt ended: %s; it is started again", k.tag, reason)})
	k.mu.Lock()
	k.status.Restarts++
	k.mu.Unlock()
	k.publish(StateFailed, "telemt ended: "+reason)
	k.retryAt = time.Now().Add(wait)
}

// retry starts an inbound that does not run. What is wanted meanwhile follows.
func (k *keeper) retry() {
	k.retryAt = time.Time{}
	if k.process != nil { // it runs what was before
		if err := k.change(k.life, k.desired); err != nil && k.life.Err() == nil {
			k.retryLater(err)
		}
		return
	}
	k.mu.Lock()
	k.retrying = k.status.State == StateFailed && k.running.Inbound.Tag == ""
	k.mu.Unlock()
	err := k.start(k.life, k.desired)
	k.mu.Lock()
	pending := k.pending
	k.retrying, k.pending = false, nil
	k.mu.Unlock()
	if pending != nil {
		k.desired = *pending
		if err == nil {
			err = k.change(k.life, k.desired)
		} else {
			k.adoptClients(k.desired)
		}
	}
	if err != nil && k.life.Err() == nil {
		k.retryLater(err)
	}
}

// retryLater tells that the inbound does not serve, and when it is tried again.
func (k *keeper) retryLater(err error) {
	failure := service.Failure{Code: service.FailureApply, Tag: k.tag, Port: k.desired.Inbound.Port, Message: err.Error()}
	wait := max(k.backoff.Next(0), backoffMin)
	if apply, is := errors.AsType[*service.ApplyError](err); is {
		failure.Code = apply.Code
	}
	if _, is := errors.AsType[*process.MissingError](err); is {
		failure.Code, wait = service.FailureMissing, missingWait
		failure.Message = fmt.Sprintf("mtproto inbound %q is not served: %v", k.tag, err)
	}
	k.log.Error("an mtproto inbound is not served; trying again", "code", failure.Code, "error", err, "in", wait)
	k.deps.Failed(failure)
	k.retryAt = time.Now().Add(wait)
	if k.process == nil {
		k.running = service.Desired{}
		k.publish(StateFailed, failure.Message)
	}
}

func (k *keeper) publish(state State, problem string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.status.State == StateReady && state == StateDegraded {
		k.log.Warn("an mtproto inbound is degraded", "why", problem)
	}
	k.status.State, k.status.Error = state, problem
	k.status.Port, k.status.Clients = k.desired.Inbound.Port, len(k.desired.Inbound.Clients)
	k.status.PID, k.status.Version, k.status.StartedAt = 0, "", time.Time{}
	if k.process != nil {
		k.status.PID, k.status.Version, k.status.StartedAt = k.process.PID(), k.process.Release.Version[1:], k.process.Started.UTC()
	}
}

func (k *keeper) snapshot() InboundStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}
