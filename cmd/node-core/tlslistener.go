package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
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
	config       *tls.Config // set before run
	others       chan net.Conn
	failed       chan error
	start        sync.Once
	closing      sync.Once
	closed       chan struct{}

	mu    sync.Mutex // guards over and conns.Add
	over  bool
	conns sync.WaitGroup // of HTTP/2
}

// newTLSListener makes a listener for a server whose TLSConfig is set. Only that server may call Accept.
func newTLSListener(l net.Listener, server *http.Server) *tlsListener {
	// The server then sets TLSNextProto, before it calls Accept (http.Server.shouldConfigureHTTP2ForServe).
	server.TLSConfig.NextProtos = []string{protocolHTTP2, "http/1.1"}
	return &tlsListener{Listener: l, server: server, others: make(chan net.Conn), failed: make(chan error), closed: make(chan struct{})}
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

// run accepts connections until the listener is closed. While the server waits after an error, such as
// that of too many open files, no further connection is taken.
func (l *tlsListener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			go l.handshake(tls.Server(conn, l.config))
			continue
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
	return l.Listener.Close()
}

func (l *tlsListener) handshake(conn *tls.Conn) {
	_ = conn.SetDeadline(time.Now().Add(l.server.ReadHeaderTimeout)) // it fails on closed connections alone
	err := conn.HandshakeContext(context.Background())
	if err == nil && conn.ConnectionState().NegotiatedProtocol == protocolHTTP2 {
		_ = conn.SetDeadline(time.Time{})
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.over {
			_ = conn.Close()
			return
		}
		l.conns.Add(1)
		go l.serve(conn) // on a stack of its own
		return
	}
	if err == nil {
		_ = conn.SetDeadline(time.Time{})
	}
	select {
	case l.others <- conn:
	case <-l.closed:
		_ = conn.Close()
	}
}

// serve serves a connection of HTTP/2 until it ends.
func (l *tlsListener) serve(conn *tls.Conn) {
	defer l.conns.Done()
	defer func() {
		if p := recover(); p != nil { // net/http does the same for its own goroutine
			_ = conn.Close()
			l.server.ErrorLog.Printf("panic over a connection of %s: %v\n%s", conn.RemoteAddr(), p, debug.Stack())
		}
	}()
	l.server.TLSNextProto[protocolHTTP2](l.server, conn, l.server.Handler)
}

// wait waits until the connections of HTTP/2 have ended, or until ctx ends. Call it after the server's Shutdown,
// which tells them to end.
func (l *tlsListener) wait(ctx context.Context) error {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	ended := make(chan struct{})
	go func() { l.conns.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
