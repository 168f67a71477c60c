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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// grpcHandshake bounds a connection's handshake, as clients do. Who says nothing
// holds back as long that the connections of a listener that closed take no more
// streams.
const grpcHandshake = 20 * time.Second

// headerBytes bounds the header of a stream, which is kept until it is whole. grpc's own bound is 16 MB
// (defaultServerMaxHeaderListSize), for everybody who connects.
const headerBytes = 64 << 10

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
	refused := listen.Refused(stream)
	options := []grpc.ServerOption{grpc.ConnectionTimeout(grpcHandshake), grpc.MaxHeaderListSize(headerBytes), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		asked(stream)
		refused()
		return status.Error(codes.Unimplemented, "unknown service")
	})}
	secure := insecure.NewCredentials()
	if config := tls.ConfigFromStreamSettings(stream); config != nil {
		secure = credentials.NewTLS(config.GetTLSConfig(tls.WithNextProto("h2")))
	}
	options = append(options, grpc.Creds(countedHandshakes{secure, refused}))
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
	asked(stream)
	ended, end := context.WithCancel(context.Background())
	l.handle(encoding.NewHunkConn(stream, end, l.stream.SocketSettings.GetTrustedXForwardedFor()))
	<-ended.Done()
	return nil
}

func (l *listener) TunMulti(stream encoding.GRPCService_TunMultiServer) error {
	asked(stream)
	ended, end := context.WithCancel(context.Background())
	l.handle(encoding.NewMultiHunkConn(stream, end, l.stream.SocketSettings.GetTrustedXForwardedFor()))
	<-ended.Done()
	return nil
}
