package hysteria

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/apernet/quic-go"
	"github.com/apernet/quic-go/http3"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/hysteria/account"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/hysteria"
	"github.com/xtls/xray-core/transport/internet/hysteria/congestion/bbr"
	"github.com/xtls/xray-core/transport/internet/tls"

	"nodeagent/xray/worker/transport/listen"
)

// settings are the transport's settings of an inbound whose proxy has been made.
type settings struct {
	*hysteria.Config
	clients *account.Validator // nil where the proxy is not Hysteria's
	conns   *Clients           // nil where clients is
	reset   *quic.StatelessResetKey
	refused func() // is called for each wrong auth
}

// Prepare puts the clients of proxy, if it serves Hysteria, and the key of stateless resets
// where Listen finds them. ctx is the one in which xray-core makes the proxy: its stream
// settings are those that the inbound listens with (app/proxyman/inbound/always.go:74).
// resetKey is empty, or has 32 bytes that are secret and the same in every worker of this node. conns
// gets the connections of the clients.
func Prepare(ctx context.Context, inbound proxy.Inbound, resetKey []byte, conns *Clients) {
	stream, has := session.StreamSettingsFromContext(ctx).(*internet.MemoryStreamConfig)
	if !has {
		return
	}
	config, is := stream.ProtocolSettings.(*hysteria.Config)
	if !is {
		return
	}
	prepared := &settings{Config: config}
	if server, is := inbound.(interface {
		HysteriaInboundValidator() *account.Validator
	}); is {
		prepared.clients, prepared.conns = server.HysteriaInboundValidator(), conns
	}
	if key := (quic.StatelessResetKey{}); len(resetKey) == len(key) {
		copy(key[:], resetKey)
		prepared.reset = &key
	}
	prepared.refused = listen.Refused(stream)
	stream.ProtocolSettings = prepared
}

// listener serves the connections of one socket. mu guards conns and closed.
type listener struct {
	settings   *settings
	masquerade http.Handler
	params     *internet.QuicParams
	accept     internet.ConnHandler

	socket     net.PacketConn
	transport  *quic.Transport
	handshakes *listen.Handshakes
	quic       *quic.Listener

	mu     sync.Mutex
	conns  map[*quic.Conn]struct{}
	closed bool
}

// Listen listens for Hysteria 2. handle gets each proxied stream, and each session of
// datagrams as a *[DatagramConn].
func Listen(_ context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	prepared, is := stream.ProtocolSettings.(*settings)
	if !is {
		prepared = &settings{Config: stream.ProtocolSettings.(*hysteria.Config), refused: listen.Refused(stream)}
	}
	tlsConfig := tls.ConfigFromStreamSettings(stream)
	switch {
	case address.Family().IsDomain():
		return nil, fmt.Errorf("listen for hysteria on %s: the address is a domain", address)
	case tlsConfig == nil:
		return nil, errors.New("listen for hysteria: it needs TLS")
	case prepared.clients == nil && prepared.Auth == "":
		return nil, errors.New("listen for hysteria: there are neither clients nor an auth")
	}
	masquerade, err := masqueradeOf(prepared.Config)
	if err != nil {
		return nil, err
	}
	params := stream.QuicParams
	if params == nil {
		params = &internet.QuicParams{BbrProfile: string(bbr.ProfileStandard), UdpHop: &internet.UdpHop{}}
	}
	socket, err := listen.PacketSocket("hysteria", &net.UDPAddr{IP: address.IP(), Port: int(port)}, stream)
	if err != nil {
		return nil, err
	}
	transport, handshakes := listen.QUIC(socket, prepared.reset, prepared.refused)
	accepting, err := transport.Listen(tlsConfig.GetTLSConfig(tls.WithNextProto("h3")), quicConfig(params))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for hysteria: %w", err), transport.Close(), transport.Conn.Close())
	}
	l := &listener{
		settings: prepared, masquerade: masquerade, params: params, accept: handle,
		socket: socket, transport: transport, handshakes: handshakes, quic: accepting, conns: map[*quic.Conn]struct{}{},
	}
	go l.serve()
	return l, nil
}

// serve accepts connections until the listener is closed.
func (l *listener) serve() {
	for {
		conn, err := l.quic.Accept(context.Background())
		if err != nil {
			return
		}
		l.handshakes.Done(conn)
		if l.begin(conn) {
			go l.serveConn(conn)
		}
	}
}

func (l *listener) serveConn(conn *quic.Conn) {
	defer l.end(conn)
	visitor, gone := newVisitor(l, conn)
	defer gone()
	server := http3.Server{Handler: visitor, StreamDispatcher: visitor.dispatch}
	_ = server.ServeQUICConn(conn) // it ends with the connection, whose error is the client's
	_ = conn.CloseWithError(noError, "")
}

// begin notes a connection. It closes the connection and returns false where the listener is
// closed.
func (l *listener) begin(conn *quic.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		go func() { _ = conn.CloseWithError(noError, "") }()
		return false
	}
	l.conns[conn] = struct{}{}
	return true
}

func (l *listener) end(conn *quic.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// Addr implements internet.Listener.
func (l *listener) Addr() net.Addr { return l.quic.Addr() }

// closeWait is how long Close waits until all clients are told. The handshake of a client that
// does not read can hold a connection up.
const closeWait = 300 * time.Millisecond

// Close tells every client that its connection ends (CONNECTION_CLOSE, RFC 9000 section 10.2),
// so that the client connects again at once, and closes the socket. quic.Transport.Close tells
// nobody: a client would send into the void until its idle timeout, 30 seconds later.
func (l *listener) Close() error {
	err := l.quic.Close()
	l.mu.Lock()
	l.closed = true
	var told sync.WaitGroup
	for conn := range l.conns {
		told.Go(func() { _ = conn.CloseWithError(noError, "") })
	}
	l.mu.Unlock()
	done := make(chan struct{})
	go func() {
		told.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeWait):
	}
	return errors.Join(err, l.transport.Close(), l.transport.Conn.Close())
}
