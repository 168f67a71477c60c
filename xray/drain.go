package xray

import (
	"context"
	"fmt"
	"slices"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// drainedWorker is an old worker that serves its open streams until they end. state has the
// inbounds and clients to which these streams may belong.
type drainedWorker struct {
	*workerClient
	state state.State
}

// startDraining drains the old worker after the new one has taken over. It records the
// restart and its reason in the status.
func (e *Engine) startDraining(ctx context.Context, old *workerClient, oldState state.State, reason string) {
	e.mu.Lock()
	e.status.Restarts++
	e.status.LastRestart = reason
	e.mu.Unlock()
	e.deps.Log.Warn("a new worker took over, the old one drains",
		logkey.Reason, reason, logkey.OldPID, old.process.PID(), logkey.PID, e.worker.process.PID(), logkey.Timeout, time.Duration(e.drainTimeout.Load()))
	e.drain(ctx, old, oldState)
}

// drain makes an old worker close its listeners and serve its open streams until they end.
// finishRemovals ends the streams of removed clients later, once the new state runs.
func (e *Engine) drain(ctx context.Context, old *workerClient, state state.State) {
	e.spares.closeAll() // what waits there goes to a worker
	e.draining(old, state)
	timeout := time.Duration(e.drainTimeout.Load())
	ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("no answer within %s", opTimeout))
	defer cancel()
	if _, err := old.call(ctx, ipc.Request{Drain: &ipc.Drain{Timeout: timeout}}); err != nil {
		e.deps.Log.Error("drain the old worker, ending it", logkey.PID, old.process.PID(), logkey.Error, err)
		old.process.Kill()
	}
	go e.endDrained(old, timeout)
}

// endDrained kills a drained worker that does not end by itself within timeout, and wakes Run when
// it has ended.
func (e *Engine) endDrained(old *workerClient, timeout time.Duration) {
	select {
	case <-old.process.Done():
	case <-time.After(timeout + stopGrace): // it should have ended itself
		old.process.Kill()
		<-old.process.Done()
	}
	select {
	case e.wakeUp <- struct{}{}:
	default:
	}
}

// drainRest drains the adopted workers that listen besides the one that serves.
func (e *Engine) drainRest(ctx context.Context) {
	rest := e.rest
	e.rest = nil
	for _, w := range rest {
		if e.worker == nil { // nothing serves but this one: it is the worker again
			e.serveAgain(w.workerClient, w.state)
			e.tryAgain(time.Now())
			continue
		}
		e.startDraining(ctx, w.workerClient, w.state, "the daemon before was ended while a new worker took over")
	}
}

// finishRemovals is called once the state to runs. In the drained workers it ends the streams
// of clients that are not in to, and sets the limits of to. It reports the slots of unserved,
// the removed clients that no worker had, as closed.
func (e *Engine) finishRemovals(ctx context.Context, to state.State, unserved state.Clients) {
	for _, w := range e.drained {
		for _, clients := range state.ClientsGone(w.state, to) {
			e.presence.leaving(state.SlotsOf(clients), w.workerClient)
		}
		e.syncDrained(ctx, w, to)
	}
	if len(unserved) > 0 {
		e.deps.SlotsClosed(state.SlotsOf(unserved))
	}
}

// unserved returns the clients of gone that no worker has. gone is by inbound tag. No worker
// will report the slots of these clients as closed, so the engine does.
func (e *Engine) unserved(gone map[string]state.Clients) state.Clients {
	var all state.Clients
	for tag, clients := range gone {
		all = append(all, slices.DeleteFunc(slices.Clone(clients), func(c *state.Client) bool {
			has := func(s state.State) bool { return s.Inbounds[tag].Clients.Find(c.Email) != nil }
			return has(e.running) || slices.ContainsFunc(e.drained, func(w *drainedWorker) bool { return has(w.state) })
		})...)
	}
	return all
}

// clientsIn returns the clients that the drained worker has in the inbound tag.
func (w *drainedWorker) clientsIn(tag string, clients state.Clients) state.Clients {
	own := w.state.Inbounds[tag].Clients
	return slices.DeleteFunc(slices.Clone(clients), func(c *state.Client) bool { return own.Find(c.Email) == nil })
}

// syncDrained applies the state to to the open streams of a drained worker: it ends the
// streams of removed clients and inbounds, and sets changed limits.
func (e *Engine) syncDrained(ctx context.Context, w *drainedWorker, to state.State) {
	ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("the worker did not finish within %s", opTimeout))
	defer cancel()
	for _, op := range syncDrainedOps(w.state, to) {
		if err := w.do(ctx, op); err != nil {
			e.deps.Log.Error("change clients in the draining worker, ending it", logkey.PID, w.process.PID(), logkey.Error, err)
			w.process.Kill()
			return
		}
		w.state = w.state.After(op)
	}
}

// syncDrainedOps returns the operations for syncDrained. They add nothing, because a drained
// worker has no listeners but those of datagrams, and gets no new clients. An inbound that leaves
// a port of theirs gives it up in the drained worker too, so that another inbound or program can have it. All
// inbounds over QUIC go where new streams would take other ways in to: a connection over QUIC takes new
// streams in the drained worker, which keeps its ways. The clients connect again, to the next worker.
func syncDrainedOps(from, to state.State) []state.Operation {
	var ops []state.Operation
	gone, sameWays := state.ClientsGone(from, to), state.SameWays(from, to)
	for _, tag := range from.Tags() {
		next, stays := to.Inbounds[tag]
		if !stays {
			ops = append(ops, state.Operation{Kind: state.OpRemoveInbound, Tag: tag})
			continue
		}
		if in := from.Inbounds[tag]; in.OverQUIC() && !sameWays || (in.OverQUIC() || in.BySource()) && !holds(next, in) {
			ops = append(ops, state.Operation{Kind: state.OpReleaseInbound, Tag: tag})
		}
		for some := range slices.Chunk(gone[tag], state.UsersPerOperation) {
			op := state.Operation{Kind: state.OpRemoveUsers, Tag: tag}
			for _, client := range some {
				op.Emails = append(op.Emails, client.Email)
			}
			ops = append(ops, op)
		}
		var changed state.Clients
		for _, client := range from.Inbounds[tag].Clients {
			if now := next.Clients.Find(client.Email); now != nil && now != client && now.SameAccount(client) && !now.SameBounds(client) {
				changed = append(changed, now)
			}
		}
		for some := range slices.Chunk(changed, state.UsersPerOperation) {
			ops = append(ops, state.Operation{Kind: state.OpUpdateUsers, Tag: tag, Users: some.Values()})
		}
	}
	return ops
}

// holds reports whether now listens where before does.
func holds(now, before state.Inbound) bool {
	have, err := now.Bindings()
	want, err2 := before.Bindings()
	return err == nil && err2 == nil && !slices.ContainsFunc(want, func(b state.Binding) bool { return !slices.ContainsFunc(have, b.Overlaps) })
}

func (e *Engine) forgetDrained() {
	e.forget(func(w *drainedWorker) bool {
		select {
		case <-w.process.Done():
			<-w.heardAll
			e.presence.workerEnded(w.workerClient)
			w.forgetCrash()
			e.deps.Log.Info("drained worker ended", logkey.PID, w.process.PID())
			return true
		default:
			return false
		}
	})
}
