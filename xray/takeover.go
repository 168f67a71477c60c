package xray

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nodeagent/xray/state"
)

// releaseSocket makes the old worker, which runs desired, stop listening on the abstract unix
// sockets on which op is going to listen in the new worker. Two processes cannot listen on
// one abstract name.
func (e *Engine) releaseSocket(ctx context.Context, old *workerClient, desired state.State, op state.Operation) error {
	if old == nil || op.Inbound == nil || op.Kind == state.OpPrepareInbound {
		return nil
	}
	abstract := slices.DeleteFunc(unixSockets(*op.Inbound), func(b state.Binding) bool { return !strings.HasPrefix(b.Path, "@") })
	for _, tag := range desired.Tags() {
		if !state.AnyOverlap(unixSockets(desired.Inbounds[tag]), abstract) {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("the worker did not finish within %s", opTimeout))
		err := old.do(ctx, state.Operation{Kind: state.OpReleaseInbound, Tag: tag})
		cancel()
		if err != nil {
			return fmt.Errorf("release the unix socket of inbound %q: %w", tag, err)
		}
	}
	return nil
}

// reclaimSockets makes the old worker listen again on its unix sockets, after the worker that
// was to replace it has failed. done are the operations that the new worker executed.
func (e *Engine) reclaimSockets(life context.Context, done []state.Operation) error {
	taken := takenSockets(done)
	var failures []error
	for _, tag := range e.running.Tags() {
		shell := e.running.Inbounds[tag]
		if e.worker == nil || !state.AnyOverlap(unixSockets(shell), taken) {
			continue
		}
		clients := shell.Clients
		shell.Clients = nil
		err := e.execute(life, state.Operation{Kind: state.OpReplaceInbound, Tag: tag, Inbound: &shell, Users: clients.Values()})
		if err != nil {
			failures = append(failures, fmt.Errorf("take back the unix socket of inbound %q: %w", tag, err))
			e.did(state.Operation{Kind: state.OpRemoveInbound, Tag: tag})
			e.tryAgain(time.Now().Add(repairWait))
		}
	}
	e.settle()
	return errors.Join(failures...)
}

// takenSockets are the unix sockets on which a worker began to listen by operations. An inbound that is
// prepared does not listen.
func takenSockets(done []state.Operation) (taken []state.Binding) {
	for _, op := range done {
		if op.Inbound != nil && op.Kind != state.OpPrepareInbound {
			taken = append(taken, unixSockets(*op.Inbound)...)
		}
	}
	return taken
}

func unixSockets(in state.Inbound) []state.Binding {
	bindings, err := in.Bindings()
	if err != nil {
		return nil // Parse has refused such inbounds already
	}
	return slices.DeleteFunc(bindings, func(b state.Binding) bool { return b.Network != state.NetworkUnix })
}
