package xray

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// apply reaches the state from the one that runs, or returns to that: the way
// back has its own time, which ends with life alone.
// What to leaves out of whole, for it waits to be restored, is checked with it.
func (e *Engine) apply(ctx, life context.Context, to, whole State) error {
	reason := ""
	if e.worker != nil {
		reason = NeedsNewWorker(e.state, to)
	}
	ops := Diff(e.state, to)
	waiting := e.changesMissing(whole)
	if reason == "" && len(ops) == 0 && !waiting {
		return nil
	}
	if err := errors.Join(checkPeers(e.wanted, whole), checkPasswords(e.wanted, whole)); err != nil {
		return err
	}
	if reason != "" || needsDryRun(ops) || waiting {
		if err := checkNew(e.wanted, whole, time.Now()); err != nil {
			return err
		}
		if err := e.dryRun(ctx, whole); err != nil {
			return err
		}
		ops = checked(ops)
	}
	if e.worker == nil || reason != "" {
		return e.replaceWorker(ctx, life, to, reason)
	}
	for i, op := range ops {
		if err := e.execute(ctx, op); err != nil {
			e.worker.changing = errors.Is(err, errWorkerGone)
			err = fmt.Errorf("%s: %w", op.Kind, err)
			return errors.Join(err, e.rollback(life, ops[:i]))
		}
	}
	e.state = to
	return nil
}

// withoutMissing leaves out the inbounds that are wanted already, as they are, and
// could not be restored: they are tried again by themselves, and hold up no change of
// the others.
func (e *Engine) withoutMissing(to State) State {
	to.Inbounds = maps.Clone(to.Inbounds)
	maps.DeleteFunc(to.Inbounds, func(tag string, in Inbound) bool {
		return e.missing[tag] && slices.Equal(e.wanted.Inbounds[tag].Config, in.Config)
	})
	return to
}

// changesMissing tells whether an inbound that could not be restored gets other clients.
func (e *Engine) changesMissing(to State) bool {
	for tag := range e.missing {
		if !slices.EqualFunc(e.wanted.Inbounds[tag].Clients, to.Inbounds[tag].Clients, func(a, b Client) bool { return a.Email == b.Email }) {
			return true
		}
	}
	return false
}

// missingOf are the tags of the inbounds that a wanted state has and another has not.
func missingOf(wanted, other State) map[string]bool {
	missing := map[string]bool{}
	for tag := range wanted.Inbounds {
		if _, has := other.Inbounds[tag]; !has {
			missing[tag] = true
		}
	}
	return missing
}

func checked(ops []Operation) []Operation {
	for i := range ops {
		ops[i].Checked = true
	}
	return ops
}

// execute does one operation in the worker that serves, and lets those that
// drain end the streams of the clients that leave. A worker that gives no
// answer may have done anything: it is ended, and the next one brings back
// what is wanted.
func (e *Engine) execute(ctx context.Context, op Operation) error {
	gone := clientsLeaving(e.state, op)
	e.crowd.leaving(slotsOf(gone), e.worker)
	for _, w := range e.drained {
		e.crowd.leaving(slotsOf(w.has(op.Tag, gone)), w.workerClient)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("the worker did not finish within %s", opTimeout))
	defer cancel()
	err := e.worker.do(ctx, op)
	if _, answered := errors.AsType[*OperationError](err); err != nil && !answered {
		if !errors.Is(err, errWorkerGone) || !e.worker.killedFromOutside() {
			err = fmt.Errorf("%w: %w", ErrFatalChange, err)
		}
		e.worker.process.Kill()
		return fmt.Errorf("%w: %w", errWorkerGone, err)
	}
	if err != nil {
		e.crowd.staying(slotsOf(gone))
		return err
	}
	return nil
}

// unserved are those of the clients, by inbound, whom no worker has: nothing counts to
// them, and nothing will tell that it has ended.
func (e *Engine) unserved(gone map[string][]Client) []Client {
	var all []Client
	for tag, clients := range gone {
		all = append(all, slices.DeleteFunc(slices.Clone(clients), func(c Client) bool {
			has := func(s State) bool { return s.Inbounds[tag].Clients.Find(c.Email) != nil }
			return has(e.state) || slices.ContainsFunc(e.drained, func(w *drainedWorker) bool { return has(w.state) })
		})...)
	}
	return all
}

// leave is called once a state has been reached: it ends the streams of those
// who are not in it in the workers that drain, lets its limits hold there, and
// announces the slots of those whom no worker had.
func (e *Engine) leave(ctx context.Context, to State, unserved []Client) {
	for _, w := range e.drained {
		for _, clients := range clientsGone(w.state, to) {
			e.crowd.leaving(slotsOf(clients), w.workerClient)
		}
		e.follow(ctx, w, to)
	}
	if len(unserved) > 0 {
		e.deps.SlotsClosed(slotsOf(unserved))
	}
}

// has returns those of the clients that the worker was left with.
func (w *drainedWorker) has(tag string, clients []Client) []Client {
	own := w.state.Inbounds[tag].Clients
	return slices.DeleteFunc(slices.Clone(clients), func(c Client) bool { return own.Find(c.Email) == nil })
}

// follow makes a worker that drains keep to a state as far as its open streams are
// concerned: who is in it, with which limits, and through which inbounds.
func (e *Engine) follow(ctx context.Context, w *drainedWorker, to State) {
	ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("the worker did not finish within %s", opTimeout))
	defer cancel()
	for _, op := range followOps(w.state, to) {
		if err := w.do(ctx, op); err != nil {
			e.deps.Log.Error("change clients in the draining worker, ending it", "pid", w.process.PID(), "error", err)
			w.process.Kill()
			return
		}
		w.state = w.state.After(op)
	}
}

// followOps lead a worker without listeners from a state as near to another as it can
// come: nobody new can come there.
func followOps(from, to State) []Operation {
	var ops []Operation
	gone := clientsGone(from, to)
	for _, tag := range from.Tags() {
		next, stays := to.Inbounds[tag]
		if !stays {
			ops = append(ops, Operation{Kind: OpRemoveInbound, Tag: tag})
			continue
		}
		for some := range slices.Chunk(gone[tag], usersPerOperation) {
			op := Operation{Kind: OpRemoveUsers, Tag: tag}
			for _, client := range some {
				op.Emails = append(op.Emails, client.Email)
			}
			ops = append(ops, op)
		}
		var changed []Client
		for _, client := range from.Inbounds[tag].Clients {
			if now := next.Clients.Find(client.Email); now != nil && now.sameAccount(&client) && now.Limits != client.Limits {
				changed = append(changed, *now)
			}
		}
		for some := range slices.Chunk(changed, usersPerOperation) {
			ops = append(ops, Operation{Kind: OpUpdateUsers, Tag: tag, Users: some})
		}
	}
	return ops
}

// rollback undoes the operations that were done, by the diff back. What can't
// be undone is named in the error and tried again later.
func (e *Engine) rollback(life context.Context, done []Operation) error {
	before := e.state
	for _, op := range done {
		e.state = e.state.After(op)
	}
	err := e.reachBestEffort(life, before, "roll back")
	e.missing = missingOf(e.wanted, e.state)
	return err
}

// reachBestEffort does what it can of the way to the state; e.state tells how
// far it came. The error names what is left, which is tried again.
func (e *Engine) reachBestEffort(ctx context.Context, to State, what string) error {
	var failures []error
	broken, unrouted := map[string]bool{}, false
	for _, op := range checked(withClients(Diff(e.state, to), to)) {
		switch {
		case broken[op.Tag] && op.Kind == OpAddUsers:
			continue // its inbound is not there
		case unrouted && (op.Kind == OpAddInbound || op.Kind == OpReplaceInbound || op.Kind == OpAddUsers):
			continue // without the rules, what they block would pass
		}
		if err := e.execute(ctx, op); err != nil {
			broken[op.Tag] = true
			unrouted = unrouted || op.Kind == OpSetRouting
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
// then, shares its ports, and is drained; on an error it stays, with what was taken of it.
func (e *Engine) replaceWorker(ctx, life context.Context, to State, reason string) error {
	old, oldState := e.worker, e.state
	next, err := e.start(ctx, to.Base, held(oldState))
	if err != nil {
		return err
	}
	e.worker, e.state = next, State{Base: to.Base}
	ops := checked(withClients(Diff(e.state, to), to))
	for i, op := range ops {
		err := e.release(ctx, old, oldState, op)
		if err == nil {
			err = e.execute(ctx, op)
		}
		if err != nil {
			e.worker, e.state = old, oldState
			next.end()
			e.crowd.workerEnded(next)
			return errors.Join(fmt.Errorf("%s: %w", op.Kind, err), e.takeBack(life, ops[:i+1]))
		}
	}
	e.state = to
	if old == nil {
		return nil
	}
	e.tookOver(ctx, old, oldState, reason)
	return nil
}

// tookOver lets the worker drain that another one has taken the place of.
func (e *Engine) tookOver(ctx context.Context, old *workerClient, oldState State, reason string) {
	e.mu.Lock()
	e.status.Restarts++
	e.status.LastRestart = reason
	e.mu.Unlock()
	e.deps.Log.Warn("a new worker took over, the old one drains",
		"reason", reason, "old_pid", old.process.PID(), "pid", e.worker.process.PID(), "timeout", e.config.DrainTimeout)
	e.drain(ctx, old, oldState)
}

// drain lets an old worker serve its open streams to their end. Those of the
// clients that are gone are cut once the new state is reached: see leave.
func (e *Engine) drain(ctx context.Context, old *workerClient, state State) {
	e.drained = append(e.drained, &drainedWorker{old, state})
	ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("no answer within %s", opTimeout))
	defer cancel()
	if _, err := old.call(ctx, Request{Drain: &Drain{Timeout: e.config.DrainTimeout}}); err != nil {
		e.deps.Log.Error("drain the old worker, ending it", "pid", old.process.PID(), "error", err)
		old.process.Kill()
	}
	go func() {
		select {
		case <-old.process.Done():
		case <-time.After(e.config.DrainTimeout + stopGrace): // it hangs
			old.process.Kill()
			<-old.process.Done()
		}
		select {
		case e.wakeUp <- struct{}{}:
		default:
		}
	}()
}

func (e *Engine) forgetDrained() {
	e.drained = slices.DeleteFunc(e.drained, func(w *drainedWorker) bool {
		select {
		case <-w.process.Done():
			<-w.heardAll
			e.crowd.workerEnded(w.workerClient)
			w.forgetCrash()
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
		worker, err := e.start(ctx, e.wanted.Base, nil)
		if err != nil {
			e.retryAt = time.Now().Add(max(e.backoff.Next(0), backoffMin))
			e.deps.Failed(Failure{Crash: true, Code: FailureOther, Message: "the xray worker does not start: " + err.Error()})
			return err
		}
		e.worker, e.state = worker, State{Base: e.wanted.Base}
	} else if reason := NeedsNewWorker(e.state, e.wanted); reason != "" {
		old, oldState := e.worker, e.state
		worker, err := e.start(ctx, e.wanted.Base, held(oldState))
		if err != nil {
			e.retryAt = time.Now().Add(repairWait)
			return err
		}
		e.worker, e.state = worker, State{Base: e.wanted.Base}
		defer func() {
			e.tookOver(ctx, old, oldState, reason)
			if len(e.missing) > 0 { // what the old one listened on alone
				e.retryAt = time.Now()
			}
		}()
	}
	err := e.reachBestEffort(ctx, e.wanted, "restore")
	e.missing = missingOf(e.wanted, e.state)
	for _, failure := range operationErrors(err) {
		e.deps.Failed(Failure{Code: failure.Code, Tag: failure.Tag, Port: failure.Port, Message: failure.Message})
	}
	return err
}

func (e *Engine) start(ctx context.Context, base Base, held []Binding) (*workerClient, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("the xray worker did not boot within %s", bootTimeout))
	defer cancel()
	w, err := startWorker(ctx, e.config.Worker, Boot{
		Counters: e.config.CountersPath, Base: base, Held: held, CrashOutput: e.ownCrashFile(),
	}, e.heard)
	if err != nil {
		return nil, err
	}
	go e.watch(w)
	return w, nil
}

func (e *Engine) liveWorkers() []*workerClient {
	var live []*workerClient
	for _, w := range e.drained {
		live = append(live, w.workerClient)
	}
	if e.worker != nil {
		live = append(live, e.worker)
	}
	return live
}

// held is where a state's inbounds listen.
func held(s State) []Binding {
	var all []Binding
	for _, tag := range s.Tags() {
		if bindings, err := s.Inbounds[tag].Bindings(); err == nil {
			all = append(all, bindings...)
		}
	}
	return all
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
