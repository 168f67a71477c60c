package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nodeagent/internal/fault"
	"nodeagent/telemt/service"
	"nodeagent/xray/state"
)

// applyEnginesLocked brings both engines to the configuration, or neither. Where Xray gets a
// port that an MTProto inbound has, the MTProto engine goes first, to release it.
func (a *Agent) applyEnginesLocked(ctx context.Context, d desired) error {
	xrayStep := func(ctx context.Context, d desired) error { return a.xray.Apply(ctx, d.xray) }
	mtprotoStep := func(ctx context.Context, d desired) error { return mtprotoFault(a.mtproto.Apply(ctx, d.mtproto)) }
	first, second := xrayStep, mtprotoStep
	if takesPort(d.xray, a.running.mtproto) {
		first, second = mtprotoStep, xrayStep
	}
	if err := first(ctx, d); err != nil {
		return err
	}
	err := second(ctx, d)
	if err == nil {
		return nil
	}
	// ctx may have ended: it cancels the apply, but not the return to what ran before.
	if back := first(context.WithoutCancel(ctx), a.running); back != nil {
		err = errors.Join(err, fmt.Errorf("return to the previous configuration: %w", back))
	}
	return err
}

// mtprotoFault turns the engine's error into a fault of the inbound that it names.
func mtprotoFault(err error) error {
	failure, ok := errors.AsType[*service.ApplyError](err)
	if !ok {
		return err
	}
	return &fault.Fault{Code: mtprotoCode(failure.Code), Kind: fault.MTProto, Tag: failure.Tag, Port: failure.Port, Message: err.Error(), Retry: true}
}

// takesPort tells whether next listens on a TCP port of an MTProto inbound of running.
func takesPort(next state.State, running service.Service) bool {
	for _, in := range next.Inbounds {
		bindings, err := in.Bindings()
		if err != nil {
			return false // applying it to Xray says what is wrong
		}
		for _, b := range bindings {
			if b.Network == "tcp" && slices.ContainsFunc(running.Inbounds, func(m service.Inbound) bool { return m.Port == b.Port }) {
				return true
			}
		}
	}
	return false
}
