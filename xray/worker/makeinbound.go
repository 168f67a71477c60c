package worker

import (
	"context"
	"errors"
	"fmt"

	"nodeagent/xray/worker/guard"
	"nodeagent/xray/worker/inbound/hysteria"
	"nodeagent/xray/worker/inbound/shadowsocks"
	"nodeagent/xray/worker/inbound/socks"
	"nodeagent/xray/worker/inbound/wireguard"
	"nodeagent/xray/worker/reach"
	transport "nodeagent/xray/worker/transport/hysteria"
	"nodeagent/xray/worker/transport/listen"

	xwireguard "github.com/xtls/xray-core/proxy/wireguard"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/dokodemo"
	xhysteria "github.com/xtls/xray-core/proxy/hysteria"
	"github.com/xtls/xray-core/proxy/shadowsocks_2022"
	xsocks "github.com/xtls/xray-core/proxy/socks"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/stat"
)

// makeInbound makes xray-core's own proxy, or ours in its place.
func makeInbound(ctx context.Context, settings any) (proxy.Inbound, error) {
	in, ok := ctx.Value(instanceKey{}).(*instance)
	if !ok {
		return nil, errors.New("make inbound: no instance in the context")
	}
	countRefused(ctx)
	switch config := settings.(type) {
	case *shadowsocks_2022.MultiUserServerConfig:
		return shadowsocks.New(config)
	case *xwireguard.DeviceConfig:
		return wireguard.New(ctx, config)
	case *xsocks.ServerConfig:
		return socks.New(ctx, config, in.inbounds.associations)
	}
	object, err := common.CreateObject(ctx, settings)
	if err != nil {
		return nil, err
	}
	inner, ok := object.(proxy.Inbound)
	if !ok {
		return nil, fmt.Errorf("make inbound: %T is no inbound proxy", object)
	}
	transport.Prepare(ctx, inner, in.resetKey, in.inbounds.hysteria)
	if server, is := inner.(*xhysteria.Server); is {
		return hysteria.Server{Server: server}, nil
	}
	if config, is := settings.(*dokodemo.Config); is && !config.FollowRedirect {
		return tunnel{inner}, nil
	}
	return inner, nil
}

// countRefused lets the listeners of the inbound that ctx has count the connections that they refuse.
func countRefused(ctx context.Context) {
	stream, has := session.StreamSettingsFromContext(ctx).(*internet.MemoryStreamConfig)
	if inbound := session.InboundFromContext(ctx); has && inbound != nil {
		listen.OnRefused(stream, func() { guard.Refuse(inbound.Tag) })
	}
}

// tunnel is an inbound whose configuration says where its connections go.
type tunnel struct{ proxy.Inbound }

func (t tunnel) Process(ctx context.Context, network net.Network, conn stat.Connection, d routing.Dispatcher) error {
	return t.Inbound.Process(reach.ByOperator(ctx), network, conn, d)
}
