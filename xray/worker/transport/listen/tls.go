package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	xerrors "github.com/xtls/xray-core/common/errors"
)

// TLS makes a listener of the connections whose handshake is complete within a time. It calls refused for
// each other one.
func TLS(socket net.Listener, config *tls.Config, within time.Duration, refused func()) net.Listener {
	return Handshaking(socket, func(socket net.Listener, hand func(net.Conn)) error {
		return Accept(context.Background(), "TLS", socket, func(conn net.Conn) {
			secure, err := shakeHands(conn, config, within)
			if err != nil {
				xerrors.LogInfo(context.Background(), err.Error())
				_ = conn.Close()
				refused()
				hand(nil)
				return
			}
			hand(&tlsConn{secure})
		})
	})
}

// tlsConn tells what the client has chosen.
type tlsConn struct{ *tls.Conn }

// NegotiatedProtocol returns the protocol that was chosen by ALPN (RFC 7301); empty for none.
func (c *tlsConn) NegotiatedProtocol() string { return c.ConnectionState().NegotiatedProtocol }

func shakeHands(conn net.Conn, config *tls.Config, within time.Duration) (secure *tls.Conn, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic in a handshake of TLS, one connection ended: %v", panicked)
		}
	}()
	secure = tls.Server(conn, config)
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	err = secure.HandshakeContext(ctx)
	if plain, is := errors.AsType[tls.RecordHeaderError](err); is && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader) {
		// As every server in Go answers (net/http/server.go).
		_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	return secure, err
}

// looksLikeHTTP tells a request of HTTP in the place of a record of TLS, as Go does.
func looksLikeHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// handshaking has the connections whose handshake is complete.
type handshaking struct {
	net.Listener // the socket
	conns        chan net.Conn
	ended        chan struct{}
	err          error // after ended
	close        func() error
}

// Handshaking makes a listener of the connections that accept hands on. accept returns once the socket
// that it is given is closed, and calls hand once for each connection that it has accepted, with nil for
// one that is refused. The connections whose handshake is under way when the listener is closed are served.
func Handshaking(socket net.Listener, accept func(socket net.Listener, hand func(net.Conn)) error) net.Listener {
	l := &handshaking{Listener: socket, conns: make(chan net.Conn), ended: make(chan struct{}), close: sync.OnceValue(socket.Close)}
	counted := &countedSocket{Listener: socket}
	go func() {
		l.err = accept(counted, func(conn net.Conn) {
			defer counted.handshakes.Done()
			if conn != nil {
				l.conns <- conn
			}
		})
		counted.handshakes.Wait()
		close(l.ended)
	}()
	return l
}

func (l *handshaking) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.ended:
		return nil, l.err
	}
}

func (l *handshaking) Close() error { return l.close() }

// countedSocket counts the handshakes that begin.
type countedSocket struct {
	net.Listener
	handshakes sync.WaitGroup
}

func (s *countedSocket) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err == nil {
		s.handshakes.Add(1)
	}
	return conn, err
}
