package grpc

import (
	"context"
	"sync/atomic"
	"time"

	"nodeagent/xray/worker/transport/listen"

	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	xgrpc "github.com/xtls/xray-core/transport/internet/grpc"
	"github.com/xtls/xray-core/transport/internet/grpc/encoding"
	"github.com/xtls/xray-core/transport/internet/tls"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// grpcHandshake bounds a connection's handshake, as clients do. Who says nothing
// holds back as long that the connections of a listener that closed take no more
// streams.
const grpcHandshake = 20 * time.Second

// listener serves an inbound's streams over gRPC.
type listener struct {
	encoding.UnimplementedGRPCServiceServer
	address net.Addr
	stream  *internet.MemoryStreamConfig
	handle  internet.ConnHandler
	server  *grpc.Server

	socket net.Listener
	closed atomic.Bool
}

// Listen returns once it listens. Port 0 means a unix socket.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	l := &listener{stream: stream, handle: listen.Deadlines(handle)}
	l.address = listen.Address(address, port)
	settings := stream.ProtocolSettings.(*xgrpc.Config)
	options := []grpc.ServerOption{grpc.ConnectionTimeout(grpcHandshake)}
	if config := tls.ConfigFromStreamSettings(stream); config != nil {
		options = append(options, grpc.Creds(countedHandshakes{credentials.NewTLS(config.GetTLSConfig(tls.WithNextProto("h2"))), listen.Refused(stream)}))
	}
	// Zero stands for grpc's own time, as in xray-core.
	options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionIdle: listen.Idle,
		Time:              time.Duration(settings.IdleTimeout) * time.Second,
		Timeout:           time.Duration(settings.HealthCheckTimeout) * time.Second,
	}))
	l.server = grpc.NewServer(options...)
	service, tun, multi := names(settings.ServiceName)
	encoding.RegisterGRPCServiceServerX(l.server, l, service, tun, multi)
	var err error
	if l.socket, err = listen.Stream(ctx, "gRPC", l.address, stream); err != nil {
		return nil, err
	}
	go func() {
		if err := l.server.Serve(l.socket); err != nil && !l.closed.Load() {
			xerrors.LogErrorInner(ctx, err, "serve gRPC on ", l.address.String())
		}
	}()
	return l, nil
}

// countedHandshakes counts the handshakes of TLS that fail.
type countedHandshakes struct {
	credentials.TransportCredentials
	refused func()
}

func (h countedHandshakes) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := h.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		h.refused()
	}
	return secure, info, err
}

// Close ends the listening at once. Open connections are told to bring no more streams,
// and end with those that they have.
func (l *listener) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	defer func() { go l.server.GracefulStop() }() // it closes the socket too
	return l.socket.Close()
}

func (l *listener) Addr() net.Addr { return l.address }

func (l *listener) Tun(stream encoding.GRPCService_TunServer) error {
	ended, end := context.WithCancel(context.Background())
	l.handle(encoding.NewHunkConn(stream, end, l.stream.SocketSettings.GetTrustedXForwardedFor()))
	<-ended.Done()
	return nil
}

func (l *listener) TunMulti(stream encoding.GRPCService_TunMultiServer) error {
	ended, end := context.WithCancel(context.Background())
	l.handle(encoding.NewMultiHunkConn(stream, end, l.stream.SocketSettings.GetTrustedXForwardedFor()))
	<-ended.Done()
	return nil
}
