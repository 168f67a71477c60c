package xray

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// checkPerClient is how long one client may take.
const checkPerClient = time.Millisecond

// needsDryRun tells whether operations are worth a process that tries them
// first. Users alone are not: the worker takes them all or none, and a node
// with many clients changes them often.
func needsDryRun(ops []state.Operation) bool {
	return slices.ContainsFunc(ops, func(op state.Operation) bool {
		switch op.Kind {
		case state.OpAddInbound, state.OpReplaceInbound, state.OpPutOutbound, state.OpSetRouting, state.OpSetPolicy, state.OpSetDNS:
			return true
		case state.OpRemoveInbound, state.OpReleaseInbound, state.OpRemoveOutbound, state.OpDefaultOutbound, state.OpAddUsers, state.OpUpdateUsers, state.OpRemoveUsers:
		}
		return false
	})
}

// dryRun builds the state in a process of its own, where a panic harms nobody,
// listening on nothing.
func (e *Engine) dryRun(ctx context.Context, to state.State) error {
	part := e.needsCheck(to)
	timeout := bootTimeout + time.Duration(part.Clients())*checkPerClient
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the check did not finish within %s", timeout))
	defer cancel()
	ctx, stop := e.whileServing(ctx)
	defer stop()
	spec := e.config.Worker
	var output outputHead
	spec.Line = output.add
	taken := state.BindingsOf(e.running) // and what those that are missing wait for
	for tag := range e.unrestored {
		if in, ok := to.Inbounds[tag]; ok && slices.Equal(in.Config, e.wanted.Inbounds[tag].Config) {
			taken = append(taken, state.BindingsOf(state.State{Inbounds: map[string]state.Inbound{tag: in}})...)
		}
	}
	w, err := startWorker(ctx, spec, ipc.Boot{
		Counters: e.config.CountersPath, Base: to.Base, DryRun: true, BaseRuns: e.wanted.Base.Equal(to.Base), Held: taken,
	}, func(*workerClient, ipc.Message) {})
	if err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	defer w.end()
	skip := map[string]bool{}
	for _, op := range state.Diff(state.State{Base: to.Base}, part) {
		if skip[op.Tag] {
			continue
		}
		op.Runs = e.wanted.HasAlready(op)
		err := w.do(ctx, op)
		e.logStack(op, err)
		_, answered := errors.AsType[*fault.Fault](err)
		switch {
		case err == nil:
		case answered && op.Kind == state.OpAddInbound && op.Runs && e.unrestored[op.Tag]: // what it waits for
			skip[op.Tag] = true
		case errors.Is(err, errWorkerGone): // it died over this operation
			<-w.process.Done()
			e.deps.Log.Error("the check of a configuration ended", "operation", op.Kind, "tag", op.Tag, "end", w.process.Err(), "output", output.String())
			if killed(w.process.Err()) { // by us or for memory: that says nothing of the configuration
				return fmt.Errorf("check configuration: %s %q: the check was killed", op.Kind, op.Tag)
			}
			// Core gets no words of a crash: they may quote a secret.
			return fault.InText(op.Tag, "check configuration: %s %q makes xray-core panic; the node's log has its words", op.Kind, op.Tag).Of(kindOf(op))
		default:
			return fmt.Errorf("check configuration: %w", fault.In(kindOf(op), err))
		}
	}
	return nil
}

// whileServing ends with the worker that serves: the check of another configuration
// must not hold up the start of the next one.
func (e *Engine) whileServing(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if e.worker != nil {
		go func(ended <-chan struct{}) {
			select {
			case <-ended:
				cancel(errors.New("the worker that serves has ended meanwhile"))
			case <-ctx.Done():
			}
		}(e.worker.process.Done())
	}
	return ctx, func() { cancel(nil) }
}

// killed tells an end by a signal from one of the process's own.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() == -1
}

// needsCheck is the part of a state that does not run already: all outbounds
// and the routing, which refer to one another, and of the inbounds those that
// change, with some of the clients that do not run as they are.
func (e *Engine) needsCheck(to state.State) state.State {
	part := to
	part.Inbounds = map[string]state.Inbound{}
	for tag, in := range to.Inbounds {
		running := e.running.Inbounds[tag]
		if !slices.Equal(running.Config, in.Config) {
			running = state.Inbound{} // another protocol's clients, perhaps
		}
		shell := in
		shell.Clients = sample(in.Protocol, state.UserOps(tag, running.Clients, in.Clients))
		if len(shell.Clients) > 0 || running.Config == nil {
			part.Inbounds[tag] = shell
		}
	}
	return part
}

// sampled is how many clients of one shape are tried first.
const sampled = 50

// sample are the clients of the operations without those that are like many others but
// for their name and key: the worker takes them all or none, and a hundred thousand take
// their time. What is wrong with a key alone Parse has found, but for Shadowsocks 2022
// and WireGuard, where each key has a length to be of.
func sample(protocol string, ops []state.Operation) state.Clients {
	all := state.Protocols[protocol].EveryKey
	count := map[uint64]int{}
	var clients state.Clients
	for _, op := range ops {
		for i := range op.Users {
			shape := op.Users[i].Reading.Shape
			if count[shape]++; all || count[shape] <= sampled {
				clients = append(clients, op.Users[i])
			}
		}
	}
	return clients
}

// outputHead keeps the first lines that a process wrote: a crash names its cause
// there.
type outputHead struct {
	mu    sync.Mutex
	lines []string
}

const headLines = 12

func (h *outputHead) add(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lines) < headLines {
		h.lines = append(h.lines, withoutSecrets(line))
	}
}

func (h *outputHead) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.lines, " | ")
}
