package listen

import (
	"context"
	"errors"
	"fmt"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/reality"
)

// Address is where a transport listens. Port 0 means a unix socket.
func Address(address net.Address, port net.Port) net.Addr {
	if port == 0 {
		return &net.UnixAddr{Name: address.Domain(), Net: "unix"}
	}
	return &net.TCPAddr{IP: address.IP(), Port: int(port)}
}

// Stream listens with a stream's masks and REALITY, without TLS.
func Stream(ctx context.Context, what string, address net.Addr, stream *internet.MemoryStreamConfig) (net.Listener, error) {
	socket, err := Masked(ctx, what, address, stream)
	if err != nil {
		return nil, err
	}
	if config := reality.ConfigFromStreamSettings(stream); config != nil {
		socket = NewREALITY(config, Refused(stream)).Listen(socket)
	}
	return socket, nil
}

// Masked listens with a stream's masks, without TLS and REALITY.
func Masked(ctx context.Context, what string, address net.Addr, stream *internet.MemoryStreamConfig) (net.Listener, error) {
	socket, err := internet.ListenSystem(ctx, address, stream.SocketSettings)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", what, address, err)
	}
	if masks := stream.TcpmaskManager; masks != nil {
		masked, err := masks.WrapListener(socket)
		if err != nil {
			return nil, errors.Join(maskError(what, address, err), socket.Close())
		}
		socket = masked
	}
	return socket, nil
}

func maskError(what string, address net.Addr, err error) error {
	return fmt.Errorf("mask %s on %s: %w", what, address, err)
}

// BeforeRandom is what comes before the random end of a unix socket's name.
const BeforeRandom = "~"
