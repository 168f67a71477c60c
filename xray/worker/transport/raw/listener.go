package raw

import (
	"context"
	"errors"
	"fmt"

	goreality "github.com/xtls/reality"

	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/reality"
	"github.com/xtls/xray-core/transport/internet/stat"
	"github.com/xtls/xray-core/transport/internet/tcp"

	"nodeagent/xray/worker/transport/listen"
)

// Listen returns once it listens. Port 0 means a unix socket. The stream has REALITY.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	config := reality.ConfigFromStreamSettings(stream)
	if config == nil {
		return nil, errors.New("listen for RAW: the stream has no REALITY")
	}
	settings := stream.ProtocolSettings.(*tcp.Config)
	if stream.SocketSettings == nil {
		stream.SocketSettings = &internet.SocketConfig{}
	}
	if settings.GetAcceptProxyProtocol() {
		stream.SocketSettings.AcceptProxyProtocol = true
	}
	header, err := headerOf(settings)
	if err != nil {
		return nil, err
	}
	at := listen.Address(address, port)
	socket, err := listen.Masked(ctx, "RAW", at, stream)
	if err != nil {
		return nil, err
	}
	go func() {
		_ = listen.NewREALITY(config, listen.Refused(stream)).Accept(socket, func(conn *goreality.Conn) {
			handle(header(&reality.Conn{Conn: conn}))
		})
		xerrors.LogDebug(ctx, "RAW listens no more on ", at.String())
	}()
	return socket, nil
}

// headerOf returns what puts the header of the settings around a connection.
func headerOf(settings *tcp.Config) (func(net.Conn) stat.Connection, error) {
	if settings.GetHeaderSettings() == nil {
		return func(conn net.Conn) stat.Connection { return conn }, nil
	}
	header, err := settings.HeaderSettings.GetInstance()
	if err != nil {
		return nil, fmt.Errorf("read the header of RAW: %w", err)
	}
	authenticator, err := internet.CreateConnectionAuthenticator(header)
	if err != nil {
		return nil, fmt.Errorf("make the header of RAW: %w", err)
	}
	if authenticator == nil { // the header "none"
		return func(conn net.Conn) stat.Connection { return conn }, nil
	}
	return func(conn net.Conn) stat.Connection { return authenticator.Server(conn) }, nil
}
