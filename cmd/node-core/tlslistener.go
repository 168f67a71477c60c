package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"nodeagent/internal/wait"
)

// protocolHTTP2 is the name of HTTP/2 in TLS (RFC 9113, section 3.2).
const protocolHTTP2 = "h2"

// tlsListener listens for a server that speaks TLS. It makes the handshake of each connection, and serves
// those of HTTP/2 itself, with the server's own code. The others are for Accept.
//
// The server would do both in one goroutine for each connection, whose stack the handshake makes
// large: four times as large as what HTTP/2 needs, and the collector halves a stack only where three quarters
// of it are free. Ten thousand nodes hold such a stack for as long as they are connected.
type tlsListener struct {
	net.Listener // of TCP
	server       *http.Server
	config       *tls.Config // a copy of server.TLSConfig, made at the first Accept; the server changes its own before
	others       chan net.Conn
	failed       chan error
	start        sync.Once
	closing      sync.Once
	closed       chan struct{}
	closeSocket  func() error // once

	mu         sync.Mutex // guards over and handshakes
	over       bool       // no further handshake begins
	handshakes map[*tls.Conn]struct{}
	open       sync.WaitGroup // of handshakes, until serve or Accept has the connection
	conns      sync.WaitGroup // of HTTP/2
}

// handshakeAtStop is how long a handshake may take that has begun when the server is told to end. net/http
// gives such a connection five seconds (http.Server.closeIdleConns).
const handshakeAtStop = 3 * time.Second

// newTLSListener makes a listener for a server whose TLSConfig is set. Only that server may call Accept.
func newTLSListener(l net.Listener, server *http.Server) *tlsListener {
	// The server then sets TLSNextProto, before it calls Accept (http.Server.shouldConfigureHTTP2ForServe).
	server.TLSConfig.NextProtos = []string{protocolHTTP2, "http/1.1"}
	return &tlsListener{
		Listener: l, server: server, others: make(chan net.Conn), failed: make(chan error), closed: make(chan struct{}),
		closeSocket: sync.OnceValue(l.Close), handshakes: map[*tls.Conn]struct{}{},
	}
}

// Accept returns the next connection that is not one of HTTP/2, or whose handshake has failed: the server
// says so to the client, and to its log.
func (l *tlsListener) Accept() (net.Conn, error) {
	l.start.Do(func() {
		l.config = l.server.TLSConfig.Clone()
		if l.server.TLSNextProto[protocolHTTP2] == nil { // GODEBUG=http2server=0
			l.config.NextProtos = []string{"http/1.1"}
		}
		go l.run()
	})
	select {
	case conn := <-l.others:
		return conn, nil
	case err := <-l.failed:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// run accepts connections until the listener is closed or drained. While the server waits after an error, such as
// that of too many open files, no further connection is taken.
func (l *tlsListener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			l.begin(tls.Server(conn, l.config))
			continue
		}
		l.mu.Lock()
		over := l.over
		l.mu.Unlock()
		if over { // the server still waits for connections whose handshakes have begun
			return
		}
		select {
		case l.failed <- err:
		case <-l.closed:
			return
		}
	}
}

// Close closes the socket that listens, and no connection.
func (l *tlsListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.closeSocket()
}

// begin begins a handshake, unless the server ends.
func (l *tlsListener) begin(conn *tls.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Now().Add(l.server.ReadHeaderTimeout)) // it fails on closed connections alone
	l.handshakes[conn] = struct{}{}
	l.open.Add(1)
	go l.handshake(conn)
}

func (l *tlsListener) handshake(conn *tls.Conn) {
	defer l.open.Done()
	defer l.endPanic(conn)
	err := l.shake(conn)
	if err == nil {
		_ = conn.SetDeadline(time.Time{})
		if conn.ConnectionState().NegotiatedProtocol == protocolHTTP2 {
			l.conns.Add(1)
			go l.serve(conn) // on a stack of its own
			return
		}
	}
	select {
	case l.others <- conn:
	case <-l.closed:
		_ = conn.Close()
	}
}

// shake makes a handshake. drain does not set the connection's deadline once it has returned.
func (l *tlsListener) shake(conn *tls.Conn) error {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.handshakes, conn)
	}()
	return conn.HandshakeContext(context.Background())
}

// serve serves a connection of HTTP/2 until it ends.
func (l *tlsListener) serve(conn *tls.Conn) {
	defer l.conns.Done()
	defer l.endPanic(conn)
	l.server.TLSNextProto[protocolHTTP2](l.server, conn, l.server.Handler)
}

// endPanic is deferred. It closes the connection over which the goroutine panics, as net/http does for its own.
func (l *tlsListener) endPanic(conn *tls.Conn) {
	if p := recover(); p != nil {
		_ = conn.Close()
		l.server.ErrorLog.Printf("panic over a connection of %s: %v\n%s", conn.RemoteAddr(), p, debug.Stack())
	}
}

// drain closes the socket that listens, and waits for the handshakes that have begun. Call it before the server's
// Shutdown, which no connection hears of that is in its handshake.
func (l *tlsListener) drain(ctx context.Context) error {
	l.mu.Lock()
	l.over = true
	begun := len(l.handshakes) > 0
	for conn := range l.handshakes {
		_ = conn.SetDeadline(time.Now().Add(min(handshakeAtStop, l.server.ReadHeaderTimeout)))
	}
	l.mu.Unlock()
	err := errors.Join(l.closeSocket(), waitFor(ctx, &l.open))
	if begun {
		wait.For(ctx, firstRequest)
	}
	return err
}

// firstRequest is how long a client that has just made its handshake has for its first request. Where it is told
// to go away before, it sends the request over another connection, which is refused.
const firstRequest = 300 * time.Millisecond

// tellAgain is how long wait waits for connections before it tells them to end once more.
const tellAgain = 500 * time.Millisecond

// wait waits until the connections of HTTP/2 have ended, or until ctx ends. Call it after the server's Shutdown,
// which tells them to end. It repeats that for connections that had not begun then.
func (l *tlsListener) wait(ctx context.Context) error {
	for {
		some, cancel := context.WithTimeout(ctx, tellAgain)
		err := waitFor(some, &l.conns)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := l.server.Shutdown(ctx); err != nil {
			return err
		}
	}
}

// waitFor waits for a group, or until ctx ends.
func waitFor(ctx context.Context, group *sync.WaitGroup) error {
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
