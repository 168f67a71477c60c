package hysteria

import (
	"context"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/hysteria/account"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/hysteria"
)

// settings are the transport's settings of an inbound whose clients are known.
type settings struct {
	*hysteria.Config
	clients *account.Validator
}

// KnowClients puts the clients of proxy, if it serves Hysteria, where Listen finds them.
// ctx is the one in which xray-core makes the proxy: its stream settings are those that
// the inbound listens with (app/proxyman/inbound/always.go:74).
func KnowClients(ctx context.Context, inbound proxy.Inbound) {
	server, is := inbound.(interface {
		HysteriaInboundValidator() *account.Validator
	})
	stream, has := session.StreamSettingsFromContext(ctx).(*internet.MemoryStreamConfig)
	if !is || !has {
		return
	}
	if config, is := stream.ProtocolSettings.(*hysteria.Config); is {
		stream.ProtocolSettings = &settings{config, server.HysteriaInboundValidator()}
	}
}

// Listen listens with xray-core's own listener, which asks the clients that KnowClients
// has noted.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	if known, is := stream.ProtocolSettings.(*settings); is {
		plain := *stream
		plain.ProtocolSettings = known.Config
		stream, ctx = &plain, hysteria.ContextWithValidator(ctx, known.clients)
	}
	return hysteria.Listen(ctx, address, port, stream, handle)
}
