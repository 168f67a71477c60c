package grpc

import (
	"context"
	"slices"
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
	"google.golang.org/grpc/metadata"
)

const (
	// realIP is the metadata by which xray-core lets a request name its own source.
	realIP = "x-real-ip"
	// grpcHandshake bounds a connection's handshake, as clients do. Who says nothing
	// holds back as long that the connections of a listener that closed take no more
	// streams.
	grpcHandshake = 20 * time.Second
)

// grpcListener serves an inbound's streams over gRPC.
type listener struct {
	encoding.UnimplementedGRPCServiceServer
	address net.Addr
	stream  *internet.MemoryStreamConfig
	handle  internet.ConnHandler
	server  *grpc.Server

	socket net.Listener
	closed atomic.Bool
}

// listenGRPC returns once it listens. Port 0 means a unix socket.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	l := &listener{stream: stream, handle: handle}
	l.address = listen.Address(address, port)
	settings := stream.ProtocolSettings.(*xgrpc.Config)
	options := []grpc.ServerOption{grpc.StreamInterceptor(l.knowSource), grpc.ConnectionTimeout(grpcHandshake)}
	if config := tls.ConfigFromStreamSettings(stream); config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config.GetTLSConfig(tls.WithNextProto("h2")))))
	}
	if settings.IdleTimeout > 0 || settings.HealthCheckTimeout > 0 {
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    time.Duration(settings.IdleTimeout) * time.Second,
			Timeout: time.Duration(settings.HealthCheckTimeout) * time.Second,
		}))
	}
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
	ended, end := context.WithCancel(context.Background())
	l.handle(encoding.NewHunkConn(stream, end))
	<-ended.Done()
	return nil
}

func (l *listener) TunMulti(stream encoding.GRPCService_TunMultiServer) error {
	ended, end := context.WithCancel(context.Background())
	l.handle(encoding.NewMultiHunkConn(stream, end))
	<-ended.Done()
	return nil
}

// knowSource takes x-real-ip out of a request, unless it has one of the headers that
// trustedXForwardedFor names, see believeHeaders, and one address alone: of two the first
// may be the client's own.
func (l *listener) knowSource(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	headers, _ := metadata.FromIncomingContext(stream.Context())
	has := func(name string) bool { return len(headers.Get(name)) > 0 }
	believed := len(headers.Get(realIP)) == 1 && slices.ContainsFunc(l.stream.SocketSettings.GetTrustedXForwardedFor(), has)
	if has(realIP) && !believed {
		headers.Delete(realIP)
		stream = &honestStream{stream, metadata.NewIncomingContext(stream.Context(), headers)}
	}
	return next(service, stream)
}

// honestStream has another context.
type honestStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *honestStream) Context() context.Context { return s.ctx }
