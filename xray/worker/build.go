package worker

import (
	"encoding/json"
	"errors"

	"github.com/xtls/xray-core/app/router"
	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/inbound"
	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/infra/conf"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/certfiles"
	"nodeagent/xray/worker/guard"
	"nodeagent/xray/worker/outbound/wireguard"
	"nodeagent/xray/worker/traffic"
	"nodeagent/xray/worker/transport"
	"nodeagent/xray/worker/unixsocket"
)

// buildInbound makes a handler that does not listen yet, with its users. files,
// where there are some, hand it its certificates; nil reads them once.
func (in *instance) buildInbound(want *state.Inbound, users []state.Client, files *certfiles.Files) (_ inbound.Handler, err error) {
	var detour conf.InboundDetourConfig
	object, err := withoutKeyLog(want.Config)
	if err == nil {
		err = json.Unmarshal(object, &detour)
	}
	if err != nil {
		return nil, fault.Caused(err, want.Tag, "read inbound %q: %v", want.Tag, err)
	}
	var own certfiles.Adopted
	if files != nil {
		if own, err = files.Adopt(want.Tag, &detour); err != nil {
			return nil, fault.Caused(err, want.Tag, "read the certificate of inbound %q: %v", want.Tag, err)
		}
		defer func() {
			if err != nil {
				own.Gone()
			}
		}()
	}
	mask, err := transport.TrustProxies(want, &detour)
	if err != nil {
		return nil, fault.Caused(err, want.Tag, "read inbound %q: %v", want.Tag, err)
	}
	if err := withSentinel(&detour); err != nil {
		return nil, fault.Caused(err, want.Tag, "inbound %q: %v", want.Tag, err)
	}
	socket := unixsocket.MakeBeside(want, &detour)
	config, err := detour.Build()
	if err != nil {
		return nil, fault.Caused(err, want.Tag, "build inbound %q: %v", want.Tag, err)
	}
	bySource, err := transport.Own(config, mask)
	if err != nil {
		return nil, fault.Caused(err, want.Tag, "build inbound %q: %v", want.Tag, err)
	}
	made, err := core.CreateObject(in.core, guard.Wrap(config))
	if err != nil {
		return nil, fault.Caused(err, want.Tag, "make inbound %q: %v", want.Tag, err)
	}
	handler, ok := made.(inbound.Handler)
	if !ok {
		return nil, fault.InText(want.Tag, "make inbound %q: %T is no inbound", want.Tag, made)
	}
	own.Built()
	if len(users) > 0 && state.Protocols[want.Protocol].UserManager {
		if err := addUsers(handler, want.Tag, detour, users); err != nil {
			return nil, errors.Join(err, closeHandler(handler))
		}
	}
	lasts := ends
	switch {
	case want.OverQUIC():
		lasts = lastsByID
	case bySource && want.BySource():
		lasts = lastsBySource
	}
	in.inbounds.owns(handler, own, socket, lasts)
	return handler, nil
}

func (in *instance) buildOutbound(want *state.Outbound) (outbound.Handler, error) {
	var detour conf.OutboundDetourConfig
	raw, err := withoutKeyLog(want.Config)
	if err == nil {
		err = json.Unmarshal(raw, &detour)
	}
	if err != nil {
		return nil, fault.Caused(err, want.Tag, "read outbound %q: %v", want.Tag, err)
	}
	config, err := detour.Build()
	if err != nil {
		return nil, fault.Caused(err, want.Tag, "build outbound %q: %v", want.Tag, err)
	}
	if err := traffic.Direct(config); err != nil {
		return nil, fault.Caused(err, want.Tag, "make outbound %q: %v", want.Tag, err)
	}
	object, err := core.CreateObject(in.core, config)
	if err != nil {
		return nil, fault.Caused(err, want.Tag, "make outbound %q: %v", want.Tag, err)
	}
	handler, ok := object.(outbound.Handler)
	if !ok {
		return nil, fault.InText(want.Tag, "make outbound %q: %T is no outbound", want.Tag, object)
	}
	if err := wireguard.Guard(handler); err != nil {
		return nil, errors.Join(fault.Caused(err, want.Tag, "make outbound %q: %v", want.Tag, err), common.Close(handler))
	}
	return handler, nil
}

// buildRouting returns no rules for a nil object.
func buildRouting(raw json.RawMessage) (*router.Config, error) {
	if raw == nil {
		return &router.Config{}, nil
	}
	var config conf.RouterConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fault.Caused(err, "", "read routing: %v", err)
	}
	built, err := config.Build()
	if err != nil {
		return nil, fault.Caused(err, "", "build routing: %v", err)
	}
	return built, nil
}
