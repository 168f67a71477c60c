package xray

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// apply reaches the state from the one that runs, or returns to that.
func (e *Engine) apply(ctx context.Context, to State) error {
	reason := ""
	if e.worker != nil {
		reason = NeedsNewWorker(e.state, to)
	}
	ops := Diff(e.state, to)
	if reason == "" && len(ops) == 0 {
		return nil
	}
	if reason != "" || needsDryRun(ops) {
		if err := e.dryRun(ctx, to); err != nil {
			return err
		}
	}
	if e.worker == nil || reason != "" {
		return e.replaceWorker(ctx, to, reason)
	}
	for i, op := range ops {
		if err := e.execute(ctx, op); err != nil {
			err = fmt.Errorf("%s: %w", op.Kind, err)
			return errors.Join(err, e.rollback(ops[:i]))
		}
	}
	e.state = to
	return nil
}

func (e *Engine) execute(ctx context.Context, op Operation) error {
	leaving := slotsLeaving(e.state, op)
	e.crowd.leaving(leaving, e.liveWorkers())
	ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("the worker did not finish within %s", opTimeout))
	defer cancel()
	err := e.worker.do(ctx, op)
	if err != nil {
		e.crowd.staying(leaving)
	}
	return err
}

// rollback undoes the operations that were done, by the diff back. What can't
// be undone is named in the error and tried again later.
func (e *Engine) rollback(done []Operation) error {
	before := e.state
	for _, op := range done {
		e.state = e.state.After(op)
	}
	e.wanted = before
	// The caller may have given up; the way back has its own time.
	return e.reachBestEffort(context.Background(), before, "roll back")
}

// reachBestEffort does what it can of the way to the state; e.state tells how
// far it came. The error names what is left, which is tried again.
func (e *Engine) reachBestEffort(ctx context.Context, to State, what string) error {
	var failures []error
	broken := map[string]bool{}
	for _, op := range Diff(e.state, to) {
		if broken[op.Tag] && op.Kind == OpAddUsers {
			continue // its inbound is not there
		}
		if err := e.execute(ctx, op); err != nil {
			broken[op.Tag] = true
			failures = append(failures, fmt.Errorf("%s: %s %s: %w", what, op.Kind, op.Tag, err))
			if errors.Is(err, errWorkerGone) {
				break
			}
			continue
		}
		e.state = e.state.After(op)
	}
	if len(failures) > 0 {
		e.retryAt = time.Now().Add(repairWait)
	}
	return errors.Join(failures...)
}

// replaceWorker starts a worker in the state. One that ran before goes on until
// then, shares its ports, and is drained; on an error it stays.
func (e *Engine) replaceWorker(ctx context.Context, to State, reason string) error {
	old, oldState := e.worker, e.state
	next, err := e.start(ctx, to.Base, old != nil)
	if err != nil {
		return err
	}
	e.worker, e.state = next, State{Base: to.Base}
	for _, op := range Diff(e.state, to) {
		if err := e.execute(ctx, op); err != nil {
			e.worker, e.state = old, oldState
			next.end()
			e.crowd.workerEnded(next)
			return fmt.Errorf("%s: %w", op.Kind, err)
		}
	}
	e.state = to
	if old == nil {
		return nil
	}
	e.mu.Lock()
	e.status.Restarts++
	e.status.LastRestart = reason
	e.mu.Unlock()
	e.deps.Log.Warn("a new worker took over, the old one drains",
		"reason", reason, "old_pid", old.process.PID(), "pid", next.process.PID(), "timeout", e.config.DrainTimeout)
	e.drain(ctx, old, oldState, to)
	return nil
}

func (e *Engine) drain(ctx context.Context, old *workerClient, from, to State) {
	e.drained = append(e.drained, old)
	if _, err := old.call(ctx, Request{Drain: &Drain{Timeout: e.config.DrainTimeout}}); err != nil {
		e.deps.Log.Error("drain the old worker, ending it", "pid", old.process.PID(), "error", err)
		old.process.Kill()
	}
	// Who was removed with this change leaves the old worker too.
	for _, op := range Diff(from, to) {
		if op.Kind == OpRemoveUsers {
			if err := old.do(ctx, op); err != nil {
				old.process.Kill()
			}
		}
	}
	go func() {
		<-old.process.Done()
		select {
		case e.wakeUp <- struct{}{}:
		default:
		}
	}()
}

func (e *Engine) forgetDrained() {
	e.drained = slices.DeleteFunc(e.drained, func(w *workerClient) bool {
		select {
		case <-w.process.Done():
			e.crowd.workerEnded(w)
			e.deps.Log.Info("drained worker ended", "pid", w.process.PID())
			return true
		default:
			return false
		}
	})
}

// restore brings up what it can of the wanted state.
func (e *Engine) restore(ctx context.Context) error {
	if e.worker == nil {
		if len(e.wanted.Inbounds) == 0 && len(e.wanted.Outbounds) == 0 {
			return nil
		}
		worker, err := e.start(ctx, e.wanted.Base, false)
		if err != nil {
			e.retryAt = time.Now().Add(e.backoff.Next(0))
			return err
		}
		e.worker, e.state = worker, State{Base: e.wanted.Base}
	}
	err := e.reachBestEffort(ctx, e.wanted, "restore")
	for _, failure := range operationErrors(err) {
		e.deps.Failed(Failure{Code: failure.Code, Tag: failure.Tag, Port: failure.Port, Message: failure.Message})
	}
	return err
}

func (e *Engine) start(ctx context.Context, base Base, takeover bool) (*workerClient, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("the xray worker did not boot within %s", bootTimeout))
	defer cancel()
	return startWorker(ctx, e.config.Worker, Boot{Counters: e.config.CountersPath, Base: base, Takeover: takeover}, e.crowd.heard)
}

func (e *Engine) liveWorkers() []*workerClient {
	return append(slices.Clone(e.drained), e.worker)
}

func operationErrors(err error) []*OperationError {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*OperationError
		for _, e := range joined.Unwrap() {
			all = append(all, operationErrors(e)...)
		}
		return all
	}
	if failure, ok := errors.AsType[*OperationError](err); ok {
		return []*OperationError{failure}
	}
	return []*OperationError{{Code: FailureOther, Message: err.Error()}}
}
