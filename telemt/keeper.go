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
	at     process.Folder
	todo   chan func()
	ended  chan struct{}
	life   context.Context // ends with the keeper
	quit   context.CancelFunc

	want    service.Wanted
	running service.Wanted   // what process runs, or the one before it ran; empty once its inbound has failed
	astray  bool             // process may run something else, for the way back to running failed
	process *process.Process // nil where none runs
	access  any              // the part of the file that process has taken; nil where nobody knows
	filed   map[string]any   // the file as it was written last
	traffic *traffic
	removed map[string]time.Time   // users that the file has as disabled, and since when
	writes  int                    // of the file
	written atomic.Pointer[[]byte] // its text
	backoff supervise.Backoff
	retryAt time.Time // zero for never
	silent  time.Time // since when its counters can't be read; zero where they can
	replace time.Time // since when another telemt lies on the disk; zero for none
	upgrade bool      // it is time to restart into it

	mu       sync.Mutex
	status   InboundStatus
	retrying bool            // an inbound that has failed is being started
	pending  *service.Wanted // what came meanwhile
}

func newKeeper(life context.Context, tag string, config Config, deps Deps, b *process.Binary) *keeper {
	k := &keeper{
		tag: tag, config: config, deps: deps, binary: b, log: deps.Log.With("tag", tag),
		at: process.FolderOf(config.StateDir, tag), todo: make(chan func()), ended: make(chan struct{}),
		traffic: newTraffic(deps), removed: map[string]time.Time{},
		backoff: supervise.Backoff{Min: backoffMin, Max: backoffMax, Healthy: healthyUptime},
		status:  InboundStatus{Tag: tag, State: StateStarting},
	}
	k.life, k.quit = context.WithCancel(life)
	return k
}

// run serves until life ends, and stops telemt then.
func (k *keeper) run() {
	defer close(k.ended)
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
			k.end()
			return
		case do := <-k.todo:
			do()
		case <-died:
			k.crashed()
		case <-retry:
			k.retry()
		}
		if k.upgrade && k.process != nil {
			k.replaceBinary()
		}
	}
}

// do runs something in the keeper's goroutine and waits for it.
func (k *keeper) do(ctx context.Context, what func() error) error {
	result := make(chan error, 1)
	select {
	case k.todo <- func() { result <- what() }:
	case <-k.ended:
		return context.Canceled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-result:
		return err
	case <-k.ended:
		return context.Canceled
	}
}

// apply reaches what is wanted, or leaves everything as it was and says why. An
// inbound that failed before may go on failing, and so may one that no telemt is
// there for: that holds up nobody else.
func (k *keeper) apply(ctx context.Context, to service.Wanted) error {
	k.mu.Lock()
	if k.retrying {
		k.pending = &to
		k.mu.Unlock()
		return nil
	}
	k.mu.Unlock()
	return k.do(ctx, func() error {
		before, isNew := k.want, k.want.In.Tag == ""
		k.want = to
		err := k.reach(ctx, to, isNew)
		if err == nil {
			return nil
		}
		k.want = before
		switch {
		case isNew || k.process != nil || k.life.Err() != nil:
		case ctx.Err() != nil: // nobody's failure: it was given up
			k.retryAt = time.Now()
		default:
			k.failed(err)
		}
		return err
	})
}

func (k *keeper) reach(ctx context.Context, to service.Wanted, isNew bool) error {
	switch {
	case k.process != nil:
		return k.change(ctx, to)
	case isNew:
		err := k.start(ctx, to)
		if _, missing := errors.AsType[*process.MissingError](err); missing && ctx.Err() == nil {
			k.adopt(to)
			k.failed(err)
			return nil
		}
		return err
	case k.running.In.Tag != "": // it served until now: what it served tells whose fault a failure is
		err := k.start(ctx, to)
		if err == nil {
			return nil
		}
		back, cancel := backContext(ctx, k.life)
		defer cancel()
		return errors.Join(err, k.start(back, k.running))
	}
	k.adopt(to)
	k.retryAt = time.Now()
	return nil
}

// adopt takes over the clients of an inbound that does not run.
func (k *keeper) adopt(to service.Wanted) {
	k.traffic.serve(to.In)
	k.traffic.ended(time.Now())
}

// revert brings the inbound to what was good before, now or later: it gives up
// nothing.
func (k *keeper) revert(ctx context.Context, to service.Wanted) error {
	k.want = to
	var err error
	if k.process != nil {
		err = k.change(ctx, to)
	} else {
		err = k.start(ctx, to)
	}
	switch _, refused := errors.AsType[*service.ApplyError](err); {
	case err == nil || k.process == nil:
	case refused:
		k.end()
	default: // it serves, and not as it should: a full disk, say
		k.astray, k.retryAt = true, time.Now().Add(backoffMin)
	}
	if k.process == nil && k.life.Err() == nil {
		k.adopt(to)
		k.failed(err)
	}
	return err
}

// restore starts what is wanted, in its own time; what fails is told and tried
// again.
func (k *keeper) restore(to service.Wanted) error {
	k.want = to
	k.traffic.serve(to.In)
	k.retryAt = time.Now()
	return nil
}

// start starts telemt, with no user of the past in its file.
func (k *keeper) start(ctx context.Context, to service.Wanted) error {
	k.retryAt = time.Time{}
	r, err := k.binary.Find(ctx)
	if err != nil {
		return err
	}
	if err := k.at.Make(); err != nil {
		return err
	}
	k.publish(StateStarting, "")
	clear(k.removed)
	ctx, cancel := context.WithTimeoutCause(ctx, k.config.StartTimeout, fmt.Errorf("no answer within %s", k.config.StartTimeout))
	defer cancel()
	p, err := process.Launch(ctx, r, k.at, to, func(place service.Place) ([]byte, error) {
		config, err := k.render(to, place)
		k.written.Store(&config)
		return config, err
	}, k.log)
	if err != nil {
		return err
	}
	k.process, k.running, k.astray, k.silent, k.replace, k.upgrade = p, to, false, time.Time{}, time.Time{}, false
	k.filed = to.Configuration(p.Place)
	k.access = k.filed["access"]
	k.traffic.serve(to.In)
	k.publish(StateReady, "")
	k.log.Info("telemt serves", "pid", p.PID(), "version", r.Version, "port", to.In.Port, "clients", len(to.In.Clients))
	return nil
}

// end stops telemt, its counters read to the end.
func (k *keeper) end() {
	if k.process == nil {
		return
	}
	k.process.Stop(context.WithoutCancel(k.life), k.traffic.count)
	k.process = nil
	k.traffic.ended(time.Now())
}

// remove ends telemt and all that the inbound had.
func (k *keeper) remove() error {
	k.retryAt = time.Time{}
	k.end()
	k.traffic.removed(time.Now())
	return nil
}

// crashed starts a telemt that ended by itself again.
func (k *keeper) crashed() {
	dead := k.process
	k.process = nil
	k.traffic.ended(time.Now())
	reason := "exit status 0"
	if err := dead.Err(); err != nil {
		reason = err.Error()
	}
	wait := k.backoff.Next(time.Since(dead.Started))
	k.log.Error("telemt ended; starting it again", "pid", dead.PID(), "reason", reason, "words", dead.Output.LastWords(), "in", wait)
	k.deps.Failed(service.Failure{Code: service.FailureCrash, Tag: k.tag, Port: k.want.In.Port, Message: fmt.Sprintf("mtproto inbound %q: telemt ended: %s; it is started again", k.tag, reason)})
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
		if err := k.change(k.life, k.want); err != nil && k.life.Err() == nil {
			k.failed(err)
		}
		return
	}
	k.mu.Lock()
	k.retrying = k.status.State == StateFailed && k.running.In.Tag == ""
	k.mu.Unlock()
	err := k.start(k.life, k.want)
	k.mu.Lock()
	pending := k.pending
	k.retrying, k.pending = false, nil
	k.mu.Unlock()
	if pending != nil {
		k.want = *pending
		if err == nil {
			err = k.change(k.life, k.want)
		} else {
			k.adopt(k.want)
		}
	}
	if err != nil && k.life.Err() == nil {
		k.failed(err)
	}
}

// failed tells that the inbound does not serve, and when it is tried again.
func (k *keeper) failed(err error) {
	failure := service.Failure{Code: service.FailureApply, Tag: k.tag, Port: k.want.In.Port, Message: err.Error()}
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
		k.running = service.Wanted{}
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
	k.status.Port, k.status.Clients = k.want.In.Port, len(k.want.In.Clients)
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
