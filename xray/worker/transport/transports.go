package transport

import (
	"errors"

	"nodeagent/xray/worker/datagrams"
	"nodeagent/xray/worker/life"
	"nodeagent/xray/worker/transport/grpc"
	"nodeagent/xray/worker/transport/httpupgrade"
	"nodeagent/xray/worker/transport/hysteria"
	"nodeagent/xray/worker/transport/mkcp"
	"nodeagent/xray/worker/transport/proxymask"
	"nodeagent/xray/worker/transport/raw"
	"nodeagent/xray/worker/transport/websocket"
	"nodeagent/xray/worker/transport/xhttp"

	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/transport/internet"
	xgrpc "github.com/xtls/xray-core/transport/internet/grpc"
	xhttpupgrade "github.com/xtls/xray-core/transport/internet/httpupgrade"
	xhysteria "github.com/xtls/xray-core/transport/internet/hysteria"
	"github.com/xtls/xray-core/transport/internet/kcp"
	"github.com/xtls/xray-core/transport/internet/reality"
	"github.com/xtls/xray-core/transport/internet/splithttp"
	"github.com/xtls/xray-core/transport/internet/tcp"
	xwebsocket "github.com/xtls/xray-core/transport/internet/websocket"
)

// Transports of xray-core for which inbounds have a listener of ours; the packages grpc,
// xhttp, hysteria, websocket, httpupgrade, mkcp and raw say why.
const (
	theirGRPC  = "grpc"
	theirXHTTP = "splithttp"

	theirHysteria  = "hysteria"
	theirMKCP      = kcp.ProtocolName
	theirWebSocket = "websocket"

	theirHTTPUpgrade = "httpupgrade"
	theirRAW         = "tcp"
)

// ownTransports are their names with our listener.
var ownTransports = map[string]string{
	theirGRPC: "nodeagent-grpc", theirXHTTP: "nodeagent-xhttp", theirHysteria: "nodeagent-hysteria", theirMKCP: "nodeagent-mkcp", theirWebSocket: "nodeagent-websocket",
	theirHTTPUpgrade: "nodeagent-httpupgrade", theirRAW: "nodeagent-raw",
}

// udpIdle is how long a datagram session over Hysteria lives without traffic, in seconds,
// where the settings name no time; as in xray-core (transport/internet/hysteria/config.go:88).
const udpIdle = 60

// Register teaches xray-core its own transports' other listeners, and our masks. The tables are
// process-wide, so it is called once.
func Register() error {
	return errors.Join(
		internet.RegisterProtocolConfigCreator(ownTransports[theirGRPC], func() any { return new(xgrpc.Config) }),
		internet.RegisterTransportListener(ownTransports[theirGRPC], grpc.Listen),
		internet.RegisterProtocolConfigCreator(ownTransports[theirXHTTP], func() any { return new(splithttp.Config) }),
		internet.RegisterTransportListener(ownTransports[theirXHTTP], xhttp.Listen),
		internet.RegisterProtocolConfigCreator(ownTransports[theirHysteria], func() any { return &xhysteria.Config{UdpIdleTimeout: udpIdle} }),
		internet.RegisterTransportListener(ownTransports[theirHysteria], hysteria.Listen),
		internet.RegisterProtocolConfigCreator(ownTransports[theirMKCP], mkcpDefaults),
		internet.RegisterTransportListener(ownTransports[theirMKCP], mkcp.Listen),
		internet.RegisterProtocolConfigCreator(ownTransports[theirWebSocket], func() any { return new(xwebsocket.Config) }),
		internet.RegisterTransportListener(ownTransports[theirWebSocket], websocket.Listen),
		internet.RegisterProtocolConfigCreator(ownTransports[theirHTTPUpgrade], func() any { return new(xhttpupgrade.Config) }),
		internet.RegisterTransportListener(ownTransports[theirHTTPUpgrade], httpupgrade.Listen),
		internet.RegisterProtocolConfigCreator(ownTransports[theirRAW], func() any { return new(tcp.Config) }),
		internet.RegisterTransportListener(ownTransports[theirRAW], raw.Listen),
		proxymask.Register(),
		datagrams.Register(),
		life.Register(),
	)
}

// mkcpDefaults are xray-core's own settings of mKCP (transport/internet/kcp/config.go:29).
func mkcpDefaults() any {
	settings, err := internet.CreateTransportConfig(theirMKCP)
	if err != nil {
		return new(kcp.Config) // xray-core always has them
	}
	return settings
}

// withOwnTransport makes an inbound listen with our listener where there is one.
func withOwnTransport(stream *internet.StreamConfig) {
	theirs := stream.GetEffectiveProtocol()
	own, has := ownTransports[theirs]
	if !has || theirs == theirRAW && stream.SecurityType != serial.GetMessageType((*reality.Config)(nil)) {
		return
	}
	stream.ProtocolName = own
	for _, transport := range stream.TransportSettings {
		if transport.ProtocolName == theirs {
			transport.ProtocolName = own
		}
	}
}
