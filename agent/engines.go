package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nodeagent/coreclient/wire"
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

// mtprotoFault turns the engine's errors into faults of the inbounds that they name.
func mtprotoFault(err error) error {
	failures := service.ApplyErrors(err)
	if len(failures) == 0 {
		return err
	}
	all := make([]error, len(failures))
	for i, failure := range failures {
		all[i] = &fault.Fault{Code: mtprotoCode(failure.Code), Kind: fault.MTProto, Tag: failure.Tag, Port: failure.Port, Message: failure.Message, Retry: !failure.Final}
	}
	return errors.Join(all...)
}

// withoutTelemt returns a fault for each MTProto inbound that waits for a telemt: the engine
// starts it as soon as there is one that the node can run.
func (a *Agent) withoutTelemt() (waiting []*fault.Fault) {
	for _, in := range a.mtproto.Status().Inbounds {
		if in.Missing {
			waiting = append(waiting, &fault.Fault{Code: wire.CodeTelemtMissing, Kind: fault.MTProto, Tag: in.Tag, Message: in.Error, Retry: true})
		}
	}
	return waiting
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
