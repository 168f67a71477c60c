// Package transport has the listeners and masks that inbounds have in the place of
// xray-core's, or before them.
package transport

import (
	"context"
	"errors"
	"fmt"

	goreality "github.com/xtls/reality"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	xgrpc "github.com/xtls/xray-core/transport/internet/grpc"
	"github.com/xtls/xray-core/transport/internet/reality"
	"github.com/xtls/xray-core/transport/internet/splithttp"
)

// Transports of xray-core for which inbounds have a listener of ours. xray-core's for gRPC
// believes every request's x-real-ip, says nothing of a port that it can't have, and ends
// its connections when it closes; for XHTTP see xhttpListener.
const (
	theirGRPC  = "grpc"
	theirXHTTP = "splithttp"
)

// ownTransports are their names with our listener.
var ownTransports = map[string]string{theirGRPC: "nodeagent-grpc", theirXHTTP: "nodeagent-xhttp"}

// Register teaches xray-core its own transports' other listeners, and the mask. The tables are
// process-wide, so it is called once.
func Register() error {
	return errors.Join(
		internet.RegisterProtocolConfigCreator(ownTransports[theirGRPC], func() any { return new(xgrpc.Config) }),
		internet.RegisterTransportListener(ownTransports[theirGRPC], listenGRPC),
		internet.RegisterProtocolConfigCreator(ownTransports[theirXHTTP], func() any { return new(splithttp.Config) }),
		internet.RegisterTransportListener(ownTransports[theirXHTTP], listenXHTTP),
		registerProxyMask(),
	)
}

// withOwnTransport makes an inbound listen with our listener where there is one.
func withOwnTransport(stream *internet.StreamConfig) {
	theirs := stream.GetEffectiveProtocol()
	own, has := ownTransports[theirs]
	if !has {
		return
	}
	stream.ProtocolName = own
	for _, transport := range stream.TransportSettings {
		if transport.ProtocolName == theirs {
			transport.ProtocolName = own
		}
	}
}

// listenAddress is where a transport listens. Port 0 means a unix socket.
func listenAddress(address net.Address, port net.Port) net.Addr {
	if port == 0 {
		return &net.UnixAddr{Name: address.Domain(), Net: "unix"}
	}
	return &net.TCPAddr{IP: address.IP(), Port: int(port)}
}

// listenStream listens with a stream's masks and REALITY, without TLS.
func listenStream(ctx context.Context, what string, address net.Addr, stream *internet.MemoryStreamConfig) (net.Listener, error) {
	socket, err := internet.ListenSystem(ctx, address, stream.SocketSettings)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", what, address, err)
	}
	if masks := stream.TcpmaskManager; masks != nil {
		masked, err := masks.WrapListener(socket)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("mask %s on %s: %w", what, address, err), socket.Close())
		}
		socket = masked
	}
	if config := reality.ConfigFromStreamSettings(stream); config != nil {
		socket = goreality.NewListener(socket, config.GetREALITYConfig())
	}
	return socket, nil
}
