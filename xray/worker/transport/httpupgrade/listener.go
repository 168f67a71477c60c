package httpupgrade

import (
	"context"
	"crypto/rand"
	gotls "crypto/tls"
	"fmt"
	"sync/atomic"

	"nodeagent/xray/worker/transport/listen"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	xhttpupgrade "github.com/xtls/xray-core/transport/internet/httpupgrade"
	"github.com/xtls/xray-core/transport/internet/tls"
)

// upgrader is xray-core's server. It answers the one request of a connection, or closes it.
type upgrader interface{ Handle(conn net.Conn) }

// Listen returns once it listens. Port 0 means a unix socket.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	if stream.SocketSettings == nil {
		stream.SocketSettings = &internet.SocketConfig{}
	}
	if stream.ProtocolSettings.(*xhttpupgrade.Config).GetAcceptProxyProtocol() {
		stream.SocketSettings.AcceptProxyProtocol = true
	}
	server, err := borrow(ctx, stream, handle)
	if err != nil {
		return nil, err
	}
	socket, err := listen.Stream(ctx, "HTTPUpgrade", listen.Address(address, port), stream)
	if err != nil {
		return nil, err
	}
	if config := tls.ConfigFromStreamSettings(stream); config != nil {
		socket = gotls.NewListener(socket, config.GetTLSConfig())
	}
	refused := listen.Refused(stream)
	go func() {
		_ = listen.Accept(ctx, "HTTPUpgrade", socket, func(conn net.Conn) { server.Handle(&visitor{Conn: conn, refused: refused}) })
	}()
	return socket, nil
}

// borrow gets xray-core's server, which it makes with a listener of its own alone, as package xhttp
// does.
func borrow(ctx context.Context, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (upgrader, error) {
	plain := *stream
	plain.SecurityType, plain.SecuritySettings, plain.TcpmaskManager = "", nil, nil
	lender, err := xhttpupgrade.ListenHTTPUpgrade(ctx, net.DomainAddress("@"+rand.Text()), 0, &plain, handle)
	if err == nil {
		err = lender.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("make a server of HTTPUpgrade: %w", err)
	}
	server, is := lender.(upgrader)
	if !is {
		return nil, fmt.Errorf("make a server of HTTPUpgrade: xray-core's %T has no Handle any more", lender)
	}
	return server, nil
}

// visitor is a connection that is counted where it ends without an answer: xray-core answers those
// that it takes, and only those (transport/internet/httpupgrade/hub.go:47).
type visitor struct {
	net.Conn

	refused func()
	told    atomic.Bool // answered or counted
}

func (v *visitor) Write(b []byte) (int, error) {
	if !v.told.Load() {
		v.told.Store(true)
	}
	return v.Conn.Write(b)
}

func (v *visitor) Close() error {
	if !v.told.Swap(true) {
		v.refused()
	}
	return v.Conn.Close()
}
