package xray

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// release ends the listening of the worker before, which runs state, where op is to listen
// on a name that two can't have: an abstract unix socket's.
func (e *Engine) release(ctx context.Context, old *workerClient, state State, op Operation) error {
	if old == nil || op.Inbound == nil {
		return nil
	}
	abstract := slices.DeleteFunc(unixSockets(*op.Inbound), func(b Binding) bool { return !strings.HasPrefix(b.Path, "@") })
	for _, tag := range state.Tags() {
		if !meet(unixSockets(state.Inbounds[tag]), abstract) {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("the worker did not finish within %s", opTimeout))
		err := old.do(ctx, Operation{Kind: OpReleaseInbound, Tag: tag})
		cancel()
		if err != nil {
			return fmt.Errorf("release the unix socket of inbound %q: %w", tag, err)
		}
	}
	return nil
}

// takeBack lets the worker listen again on the unix sockets that the operations have taken
// in another one, which was to take over.
func (e *Engine) takeBack(life context.Context, done []Operation) error {
	var taken []Binding
	for _, op := range done {
		if op.Inbound != nil {
			taken = append(taken, unixSockets(*op.Inbound)...)
		}
	}
	var failures []error
	for _, tag := range e.state.Tags() {
		shell := e.state.Inbounds[tag]
		if e.worker == nil || !meet(unixSockets(shell), taken) {
			continue
		}
		clients := shell.Clients
		shell.Clients = nil
		err := e.execute(life, Operation{Kind: OpReplaceInbound, Tag: tag, Inbound: &shell, Users: clients, Checked: true})
		if err != nil {
			failures = append(failures, fmt.Errorf("take back the unix socket of inbound %q: %w", tag, err))
			e.state = e.state.After(Operation{Kind: OpRemoveInbound, Tag: tag})
			e.retryAt = time.Now().Add(repairWait)
		}
	}
	e.missing = missingOf(e.wanted, e.state)
	return errors.Join(failures...)
}

func unixSockets(in Inbound) []Binding {
	bindings, err := in.Bindings()
	if err != nil {
		return nil // Parse has read them
	}
	return slices.DeleteFunc(bindings, func(b Binding) bool { return b.Network != networkUnix })
}
