package websocket

import (
	"context"
	"crypto/rand"
	gotls "crypto/tls"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"nodeagent/xray/worker/transport/listen"

	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/tls"
	xwebsocket "github.com/xtls/xray-core/transport/internet/websocket"
)

const (
	// headerWait and headerBytes bound a request's headers, as in xray-core (hub.go:151).
	headerWait  = 4 * time.Second
	headerBytes = 8192
)

// listener serves an inbound over WebSocket.
type listener struct {
	socket net.Listener
	server http.Server
	closed atomic.Bool
}

// Listen returns once it listens. Port 0 means a unix socket.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	if stream.SocketSettings == nil {
		stream.SocketSettings = &internet.SocketConfig{}
	}
	if stream.ProtocolSettings.(*xwebsocket.Config).GetAcceptProxyProtocol() {
		stream.SocketSettings.AcceptProxyProtocol = true
	}
	l := &listener{server: http.Server{ReadHeaderTimeout: headerWait, MaxHeaderBytes: headerBytes, IdleTimeout: listen.Idle}}
	var err error
	if l.server.Handler, err = borrowHandler(ctx, stream, handle); err != nil {
		return nil, err
	}
	listen.CountRefused(&l.server, stream)
	at := listen.Address(address, port)
	if l.socket, err = listen.Stream(ctx, "WebSocket", at, stream); err != nil {
		return nil, err
	}
	if config := tls.ConfigFromStreamSettings(stream); config != nil {
		l.socket = gotls.NewListener(l.socket, config.GetTLSConfig())
	}
	go func() {
		if err := l.server.Serve(l.socket); err != nil && !l.closed.Load() {
			xerrors.LogErrorInner(ctx, err, "serve WebSocket on ", at.String())
		}
	}()
	return l, nil
}

// borrowHandler gets xray-core's handler of requests, which it makes with a listener of its own
// alone, as package xhttp does.
func borrowHandler(ctx context.Context, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (http.Handler, error) {
	plain := *stream
	plain.SecurityType, plain.SecuritySettings, plain.TcpmaskManager = "", nil, nil
	lender, err := xwebsocket.ListenWS(ctx, net.DomainAddress("@"+rand.Text()), 0, &plain, handle)
	if err != nil {
		return nil, fmt.Errorf("make a handler of WebSocket: %w", err)
	}
	if err := lender.Close(); err != nil {
		return nil, fmt.Errorf("make a handler of WebSocket: %w", err)
	}
	server, err := listen.MemberOf[http.Server](lender, "server")
	if err != nil {
		return nil, err
	}
	return server.Handler, nil
}

// Close ends the listening. Connections that became streams go on.
func (l *listener) Close() error {
	l.closed.Store(true)
	return l.socket.Close()
}

func (l *listener) Addr() net.Addr { return l.socket.Addr() }
