package xhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	gonet "net"
	"time"

	"github.com/apernet/quic-go"
	"github.com/apernet/quic-go/http3"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/hysteria/congestion"
	"github.com/xtls/xray-core/transport/internet/hysteria/congestion/bbr"
	"github.com/xtls/xray-core/transport/internet/splithttp"
	"github.com/xtls/xray-core/transport/internet/tls"

	"nodeagent/xray/worker/relay"
	"nodeagent/xray/worker/transport/listen"
)

// http3Listener serves an inbound over XHTTP on HTTP/3, with xray-core's handler of requests. In
// xray-core's own listener (transport/internet/splithttp/hub.go:512) strangers' handshakes have
// no bound, and the socket stays open when the listener closes. requests finds the owner of each
// request's session.
type http3Listener struct {
	requests   *listener
	params     *internet.QuicParams
	socket     net.PacketConn
	transport  *quic.Transport
	handshakes *listen.Handshakes
	quic       *quic.EarlyListener
	server     http3.Server
}

// listenHTTP3 returns once it listens.
func listenHTTP3(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	l := &http3Listener{params: stream.QuicParams}
	if l.params == nil {
		l.params = &internet.QuicParams{BbrProfile: string(bbr.ProfileStandard)}
	}
	l.requests = &listener{config: stream.ProtocolSettings.(*splithttp.Config)}
	var err error
	if l.requests.requests, l.requests.sessions, err = borrowHandler(ctx, stream, handle); err != nil {
		return nil, err
	}
	at := &gonet.UDPAddr{IP: address.IP(), Port: int(port)}
	if l.socket, err = listen.PacketSocket("XHTTP", at, stream); err != nil {
		return nil, fmt.Errorf("listen for XHTTP on HTTP/3 at %s: %w", at, err)
	}
	l.transport, l.handshakes = listen.QUIC(l.socket, relay.ResetKey(), listen.Refused(stream))
	// The same settings as xray-core's (transport/internet/splithttp/hub.go:498), and keepalive.
	l.quic, err = l.transport.ListenEarly(tls.ConfigFromStreamSettings(stream).GetTLSConfig(), &quic.Config{
		InitialStreamReceiveWindow:     l.params.InitStreamReceiveWindow,
		MaxStreamReceiveWindow:         l.params.MaxStreamReceiveWindow,
		InitialConnectionReceiveWindow: l.params.InitConnReceiveWindow,
		MaxConnectionReceiveWindow:     l.params.MaxConnReceiveWindow,
		MaxIdleTimeout:                 time.Duration(l.params.MaxIdleTimeout) * time.Second,
		MaxIncomingStreams:             l.params.MaxIncomingStreams,
		KeepAlivePeriod:                cmp.Or(time.Duration(l.params.KeepAlivePeriod)*time.Second, listen.KeepAliveQUIC),
		DisablePathMTUDiscovery:        l.params.DisablePathMtuDiscovery,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for XHTTP on HTTP/3 at %s: %w", at, err), l.transport.Close(), l.transport.Conn.Close())
	}
	l.requests.begin(at.String() + "/udp")
	l.server.Handler, l.server.IdleTimeout = listen.Counted(l.requests, stream), listen.Idle
	go func() { _ = l.server.ServeListener(l) }() // its only error is that the listener is closed
	return l, nil
}

// Accept returns the next connection, before its handshake is complete.
func (l *http3Listener) Accept(ctx context.Context) (*quic.Conn, error) {
	conn, err := l.quic.Accept(ctx)
	if err != nil {
		return nil, err
	}
	go func() {
		select {
		case <-conn.HandshakeComplete():
			l.handshakes.Done(conn)
		case <-conn.Context().Done():
		}
	}()
	switch l.params.Congestion {
	case "", "bbr":
		congestion.UseBBR(conn, bbr.Profile(l.params.BbrProfile))
	case "force-brutal":
		congestion.UseBrutal(conn, l.params.BrutalUp)
	}
	return conn, nil
}

// Addr implements internet.Listener.
func (l *http3Listener) Addr() net.Addr { return l.socket.LocalAddr() }

// closeWait is how long Close waits until all clients are told.
const closeWait = 300 * time.Millisecond

// Close ends the listening, tells the clients that their connections end, and closes the socket.
func (l *http3Listener) Close() error {
	l.requests.end()
	err := l.quic.Close()
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = l.server.Close() // it waits until all connections have ended
	}()
	select {
	case <-told:
	case <-time.After(closeWait):
	}
	return errors.Join(err, l.transport.Close(), l.transport.Conn.Close())
}
