package worker

import (
	"errors"
	"net/url"
	"strings"

	"github.com/xtls/xray-core/transport/internet"
	xgrpc "github.com/xtls/xray-core/transport/internet/grpc"
)

const (
	theirGRPC = "grpc"
	// ownGRPC is the transport that inbounds have in its place.
	ownGRPC = "nodeagent-grpc"
)

func registerGRPC() error {
	return errors.Join(
		internet.RegisterProtocolConfigCreator(ownGRPC, func() any { return new(xgrpc.Config) }),
		internet.RegisterTransportListener(ownGRPC, listenGRPC),
	)
}

// ownGRPCIn makes an inbound over gRPC listen with our listener. xray-core's believes
// every request's x-real-ip, says nothing of a port that it can't have, and ends its
// connections when it closes.
func ownGRPCIn(stream *internet.StreamConfig) {
	if stream.GetEffectiveProtocol() != theirGRPC {
		return
	}
	stream.ProtocolName = ownGRPC
	for _, transport := range stream.TransportSettings {
		if transport.ProtocolName == theirGRPC {
			transport.ProtocolName = ownGRPC
		}
	}
}

// grpcNames reads a gRPC transport's serviceName. "name" has the streams Tun and
// TunMulti; "/service/with/slashes/tun|multi" names them, and one name stands for both.
func grpcNames(setting string) (service, tun, multi string) {
	path, custom := strings.CutPrefix(setting, "/")
	if !custom {
		return url.PathEscape(setting), "Tun", "TunMulti"
	}
	streams := path
	if i := strings.LastIndex(path, "/"); i >= 0 {
		service, streams = path[:i], path[i+1:]
	}
	parts := strings.Split(service, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	names := strings.Split(streams, "|")
	tun, multi = names[0], names[0]
	if len(names) > 1 {
		multi = names[1]
	}
	return strings.Join(parts, "/"), url.PathEscape(tun), url.PathEscape(multi)
}
