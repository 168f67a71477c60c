package xray

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/xray/check"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// checkPerClient is how much longer a dry run may take for each client.
const checkPerClient = time.Millisecond

// needsDryRun tells whether a dry run has to try the operations first. Operations that only
// change clients need none: the worker takes all the clients of an operation or none, and a
// node with many clients changes them often.
func needsDryRun(ops []state.Operation) bool {
	return slices.ContainsFunc(ops, func(op state.Operation) bool {
		switch op.Kind {
		case state.OpAddInbound, state.OpReplaceInbound, state.OpPrepareInbound, state.OpOpenInbound, state.OpPutOutbound, state.OpSetRouting, state.OpSetPolicy, state.OpSetDNS:
			return true
		case state.OpRemoveInbound, state.OpReleaseInbound, state.OpRemoveOutbound, state.OpDefaultOutbound, state.OpAddUsers, state.OpUpdateUsers, state.OpRemoveUsers:
		}
		return false
	})
}

// dryRun builds the state to in a separate process that opens no listener. A panic ends only
// that process, and becomes an error here.
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
	taken := append(state.BindingsOf(e.running), e.spares.bindings()...) // and the bindings for which the unrestored inbounds wait
	for tag := range e.unrestored {
		if in, ok := to.Inbounds[tag]; ok && slices.Equal(in.Config, e.wanted.Inbounds[tag].Config) {
			taken = append(taken, state.BindingsOf(state.State{Inbounds: map[string]state.Inbound{tag: in}})...)
		}
	}
	read, sockets := e.foldersOf(to)
	w, err := startWorker(ctx, spec, e.hire(), workerName("check"), ipc.Boot{
		ReadFolders: read, SocketFolders: sockets,
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
		case answered && op.Kind == state.OpAddInbound && op.Runs && e.unrestored[op.Tag]: // the known failure
			skip[op.Tag] = true
		case errors.Is(err, errWorkerGone): // the process ended during this operation
			<-w.process.Done()
			e.deps.Log.Error("the check of a configuration ended", logkey.Operation, op.Kind, logkey.Tag, op.Tag, logkey.Reason, w.process.Err(), logkey.Output, output.String())
			if supervise.Killed(w.process.Err()) { // by the engine or for lack of memory: the configuration may be good
				return fmt.Errorf("check configuration: %s %q: the check was killed", op.Kind, op.Tag)
			}
			// Core does not get the panic message, because it may quote a secret.
			return fault.InText(op.Tag, "check configuration: %s %q makes xray-core panic; the node's log has its words", op.Kind, op.Tag).Of(kindOf(op))
		default:
			return fmt.Errorf("check configuration: %w", fault.In(kindOf(op), check.OfClients(err, to)))
		}
	}
	return nil
}

// whileServing returns a context that also ends when the worker that serves ends, because a
// dry run must not delay the start of the next worker. The caller calls the function.
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

// needsCheck returns the part of to that a dry run builds: all outbounds and the routing,
// because they refer to each other, and the inbounds that change, each with a sample of the
// clients that are new or changed.
func (e *Engine) needsCheck(to state.State) state.State {
	part := to
	part.Inbounds = map[string]state.Inbound{}
	for tag, in := range to.Inbounds {
		running := e.running.Inbounds[tag]
		if !slices.Equal(running.Config, in.Config) {
			running = state.Inbound{} // the protocol may have changed, so all clients are new
		}
		shell := in
		shell.Clients = sample(in.Protocol, state.UserOps(tag, running.Clients, in.Clients))
		if len(shell.Clients) > 0 || running.Config == nil {
			part.Inbounds[tag] = shell
		}
	}
	return part
}

// sampled is how many clients of one shape a dry run builds.
const sampled = 50

// sample returns the clients of the operations, but no more than sampled clients of each
// shape. Clients of one shape differ only in name and key, and a hundred thousand clients
// take long to build. Parse finds wrong keys. It does not check their length for
// Shadowsocks 2022 and WireGuard, so sample returns all clients of these protocols.
func sample(protocol string, ops []state.Operation) state.Clients {
	all := state.Protocols[protocol].EveryKey
	count := map[uint64]int{}
	var clients state.Clients
	for _, op := range ops {
		for i := range op.Users {
			shape := op.Users[i].Reading.Shape
			if count[shape]++; all || count[shape] <= sampled {
				clients = append(clients, &op.Users[i])
			}
		}
	}
	return clients
}

// outputHead keeps the first lines that a process wrote. They name the cause of a crash.
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
