package xray

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/xray/check"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// apply changes the worker from the running state to the state to. If that fails, it returns
// to the running state; ctx does not limit the way back, only life does. whole is to with the
// inbounds that wait to be restored. The checks and the dry run look at whole.
func (e *Engine) apply(ctx, life context.Context, to, whole state.State) error {
	reason := ""
	if e.worker != nil {
		reason = e.needsNewWorker(to)
	}
	ops := state.Diff(e.running, to)
	waiting := e.changesUnrestored(whole)
	if reason == "" && len(ops) == 0 && !waiting {
		return nil
	}
	if err := check.Clients(e.wanted, whole); err != nil {
		return err
	}
	if reason != "" || needsDryRun(ops) || waiting {
		if err := check.Changed(e.wanted, whole, time.Now()); err != nil {
			return err
		}
		if err := e.dryRun(ctx, whole); err != nil {
			return err
		}
	}
	if e.worker == nil || reason != "" {
		return e.replaceWorker(ctx, life, to, reason)
	}
	for i, op := range ops {
		if err := e.execute(ctx, op); err != nil {
			e.worker.changing = errors.Is(err, errWorkerGone)
			err = fmt.Errorf("%s: %w", op.Kind, fault.In(kindOf(op), check.OfClients(err, whole)))
			back := e.rollback(life, ops[:i])
			if errors.Is(err, errWorkerGone) {
				back = nil // the rollback failed because the worker is gone; the next worker gets what ran before
			}
			return errors.Join(err, back)
		}
	}
	e.reached(to)
	return nil
}

// withoutUnrestored returns to without the inbounds that could not be restored and whose
// settings do not change. retry restores them. Without this, one such inbound would make
// every change of the other inbounds fail.
func (e *Engine) withoutUnrestored(to state.State) state.State {
	to.Inbounds = maps.Clone(to.Inbounds)
	maps.DeleteFunc(to.Inbounds, func(tag string, in state.Inbound) bool {
		return e.unrestored[tag] && slices.Equal(e.wanted.Inbounds[tag].Config, in.Config)
	})
	return to
}

// changesUnrestored tells whether to adds or removes clients of an inbound that could not be
// restored.
func (e *Engine) changesUnrestored(to state.State) bool {
	for tag := range e.unrestored {
		if !e.wanted.Inbounds[tag].Clients.SameNames(to.Inbounds[tag].Clients) {
			return true
		}
	}
	return false
}

// kindOf returns the kind of the part that the operation changes.
func kindOf(op state.Operation) fault.Kind {
	switch op.Kind {
	case state.OpPutOutbound, state.OpRemoveOutbound, state.OpDefaultOutbound:
		return fault.Outbound
	case state.OpSetRouting:
		return fault.Routing
	case state.OpSetDNS:
		return fault.DNS
	case state.OpSetPolicy:
		return fault.Policy
	case state.OpAddInbound, state.OpReplaceInbound, state.OpPrepareInbound, state.OpOpenInbound, state.OpRemoveInbound, state.OpReleaseInbound, state.OpAddUsers, state.OpUpdateUsers, state.OpRemoveUsers:
	}
	return fault.Inbound
}

// operationLimit returns how long an operation may take. An inbound comes with all of its clients
// at once, and a hundred thousand clients of Shadowsocks 2022 or WireGuard take long to build.
func operationLimit(op state.Operation) time.Duration {
	return opTimeout + time.Duration(len(op.Users))*checkPerClient
}

// execute executes one operation in the worker that serves. It announces the slots of the
// clients that the operation removes to the presenceMerger, for this worker and for the
// drained workers. A worker that does not answer may have executed the operation or not: it
// is killed, and the next worker gets the wanted state.
func (e *Engine) execute(ctx context.Context, op state.Operation) error {
	e.spares.release(e.worker, op)
	gone := state.ClientsLeaving(e.running, op)
	e.presence.leaving(state.SlotsOf(gone), e.worker)
	for _, w := range e.drained {
		e.presence.leaving(state.SlotsOf(w.clientsIn(op.Tag, gone)), w.workerClient)
	}
	limit := operationLimit(op)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the worker did not finish within %s", limit))
	defer cancel()
	err := e.worker.do(ctx, op)
	e.logStack(op, err)
	if _, answered := errors.AsType[*fault.Fault](err); err != nil && !answered {
		fromOutside := errors.Is(err, errWorkerGone) && e.worker.killedFromOutside()
		e.worker.process.Kill()
		return endedOver(err, fromOutside)
	}
	if err != nil {
		e.presence.staying(state.SlotsOf(gone))
		return err
	}
	return nil
}

// rollback undoes the operations done, by the difference from what runs now to what ran
// before. The error names what cannot be undone. It is tried again later.
func (e *Engine) rollback(life context.Context, done []state.Operation) error {
	before := e.running
	for _, op := range done {
		e.did(op)
	}
	err := e.reachBestEffort(life, before, "roll back")
	e.settle()
	return err
}

// reachBestEffort executes as many operations towards the state to as succeed, and records
// them in e.running. The error names the operations that failed. They are tried again after
// repairWait.
func (e *Engine) reachBestEffort(ctx context.Context, to state.State, what string) error {
	var failures []error
	var done []state.Operation
	broken, unrouted := map[string]bool{}, false
	for _, op := range state.TogetherWithClients(state.Diff(e.running, to), to, e.worker.usersTogether()) {
		switch {
		case broken[op.Tag] && (op.Kind == state.OpAddUsers || op.Kind == state.OpOpenInbound):
			continue // the inbound does not exist
		case unrouted && bringsInbound(op):
			continue // without the routing rules, traffic that they block would pass
		}
		if err := e.execute(ctx, op); err != nil {
			broken[op.Tag] = true
			unrouted = unrouted || op.Kind == state.OpSetRouting
			failures = append(failures, fmt.Errorf("%s: %s %s: %w", what, op.Kind, op.Tag, err))
			if errors.Is(err, errWorkerGone) {
				break
			}
			done = withoutPrepared(done, op)
			continue
		}
		done = append(done, op)
	}
	e.didAll(done, to, len(failures) == 0)
	if len(failures) > 0 {
		e.tryAgain(time.Now().Add(repairWait))
	}
	return errors.Join(failures...)
}

// bringsInbound reports whether the operation brings an inbound, or clients of one.
func bringsInbound(op state.Operation) bool {
	switch op.Kind {
	case state.OpAddInbound, state.OpReplaceInbound, state.OpPrepareInbound, state.OpOpenInbound, state.OpAddUsers:
		return true
	case state.OpRemoveInbound, state.OpReleaseInbound, state.OpUpdateUsers, state.OpRemoveUsers,
		state.OpPutOutbound, state.OpRemoveOutbound, state.OpDefaultOutbound, state.OpSetRouting, state.OpSetPolicy, state.OpSetDNS:
	}
	return false
}

// withoutPrepared returns the operations done without those that prepared the inbound for which failed could
// not be done: the worker has dropped it.
func withoutPrepared(done []state.Operation, failed state.Operation) []state.Operation {
	of := func(op state.Operation) bool { return op.Tag == failed.Tag && bringsInbound(op) }
	if !bringsInbound(failed) || !slices.ContainsFunc(done, func(op state.Operation) bool { return of(op) && op.Kind == state.OpPrepareInbound }) {
		return done
	}
	return slices.DeleteFunc(done, of)
}

// replaceWorker starts a new worker in the state to. The old worker, if there is one, serves
// until then and shares its ports with the new worker; then it is drained. On an error the
// old worker stays and gets back the unix sockets that the new worker has taken from it.
func (e *Engine) replaceWorker(ctx, life context.Context, to state.State, reason string) error {
	old, oldState := e.worker, e.running
	next, err := e.start(ctx, to, e.held())
	if err != nil {
		return err
	}
	e.serve(next, to.Base)
	ops := state.TogetherWithClients(state.Diff(e.running, to), to, e.worker.usersTogether())
	for i, op := range ops {
		err := e.releaseSocket(ctx, old, oldState, op)
		if err == nil {
			err = e.execute(ctx, op)
		}
		if err != nil {
			e.serveAgain(old, oldState)
			next.end()
			e.presence.workerEnded(next)
			return errors.Join(fmt.Errorf("%s: %w", op.Kind, fault.In(kindOf(op), check.OfClients(err, to))), e.reclaimSockets(life, ops[:i+1]))
		}
	}
	e.reached(to)
	if old == nil {
		return nil
	}
	e.startDraining(ctx, old, oldState, reason)
	return nil
}

// restore makes as much of the wanted state run as possible, with a new worker if none runs, if
// the base differs, or if the worker that runs is of another build of node-agent. It reports the
// operations that fail to Deps.Failed.
func (e *Engine) restore(ctx context.Context) error {
	if e.worker == nil {
		if len(e.wanted.Inbounds) == 0 && len(e.wanted.Outbounds) == 0 {
			return nil
		}
		worker, err := e.start(ctx, e.wanted, e.held())
		if err != nil {
			e.tryAgain(time.Now().Add(max(e.backoff.Next(0), backoffMin)))
			e.deps.Failed(Failure{Crash: true, Fault: fault.OnHost("", "the xray worker does not start: %v", err)})
			return err
		}
		e.serve(worker, e.wanted.Base)
	} else if reason := e.needsNewWorker(e.wanted); reason != "" {
		old, oldState := e.worker, e.running
		worker, err := e.start(ctx, e.wanted, e.held())
		if err != nil {
			e.tryAgain(time.Now().Add(repairWait))
			return err
		}
		e.serve(worker, e.wanted.Base)
		defer e.afterTakeover(ctx, old, oldState, reason)
	} else if reason := e.outdated(); reason != "" && !e.upgradeFailed && e.upgrade(ctx, reason) {
		return nil
	}
	return e.restored(e.reachBestEffort(ctx, e.wanted, "restore"))
}

// restored notes what is missing after reachBestEffort, which returned err, and reports it.
func (e *Engine) restored(err error) error {
	e.settle()
	for _, failure := range operationErrors(err) {
		e.deps.Failed(Failure{Fault: failure})
	}
	return err
}

// afterTakeover drains the worker before, once the new one runs what is wanted.
func (e *Engine) afterTakeover(ctx context.Context, old *workerClient, oldState state.State, reason string) {
	e.startDraining(ctx, old, oldState, reason)
	if len(e.unrestored) > 0 { // the old worker held their sockets until it began to drain
		e.tryAgain(time.Now())
	}
}

// needsNewWorker returns why the worker that serves can't run to; empty where it can.
func (e *Engine) needsNewWorker(to state.State) string {
	if reason := state.NeedsNewWorker(e.running, to); reason != "" {
		return reason
	}
	if needsNetAdmin(to) && !e.worker.kept.NetAdmin {
		return "the worker has given up CAP_NET_ADMIN, and the configuration may need it"
	}
	return e.worker.needsOtherFolders(e.foldersOf(to))
}

// start starts a worker for the state to, of which it runs the base and nothing else.
func (e *Engine) start(ctx context.Context, to state.State, held []state.Binding) (*workerClient, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("the xray worker did not boot within %s", bootTimeout))
	defer cancel()
	read, sockets := e.foldersOf(to)
	name := workerName("worker")
	w, err := startWorker(ctx, e.config.Worker, e.hire(), name, ipc.Boot{
		Counters: e.config.CountersPath, Base: to.Base, Held: held, ReadFolders: read, SocketFolders: sockets, CrashOutput: e.crashOutput(name),
		ResetKey: e.config.ResetKey, Orphan: e.orphan(), IPv6Prefix: e.config.IPv6Prefix, NetAdmin: needsNetAdmin(to), ClientNetworks: e.config.ClientNetworks,
		Settings: e.settings(), Beside: e.worker != nil,
	}, e.heard)
	if err != nil {
		return nil, err
	}
	w.beside = e.worker != nil
	go e.watch(w)
	return w, nil
}

func (e *Engine) liveWorkers() []*workerClient {
	var live []*workerClient
	for _, w := range e.drained {
		live = append(live, w.workerClient)
	}
	for _, w := range e.rest {
		live = append(live, w.workerClient)
	}
	if e.worker != nil {
		live = append(live, e.worker)
	}
	return live
}

func operationErrors(err error) []*fault.Fault {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*fault.Fault
		for _, e := range joined.Unwrap() {
			all = append(all, operationErrors(e)...)
		}
		return all
	}
	if failure, ok := errors.AsType[*fault.Fault](err); ok {
		return []*fault.Fault{failure}
	}
	return []*fault.Fault{fault.Of(err)}
}
