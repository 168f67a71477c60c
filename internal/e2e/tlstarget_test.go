package e2e

import (
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
)

// tlsTarget is a Target behind TLS 1.3, as a web site is. Vision looks for this.
type tlsTarget struct {
	*Target
	listener net.Listener
	wire     struct{ up, down atomic.Int64 } // the bytes on the wire
}

// newTLSTarget listens on loopback with a certificate that no client checks.
func newTLSTarget(tb testing.TB, cert tls.Certificate) *tlsTarget {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	t := &tlsTarget{Target: &Target{listener: l}, listener: l}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go t.Serve(silentTLS{tls.Server(wireConn{conn, t}, config)})
		}
	}()
	tb.Cleanup(func() { _ = l.Close() })
	return t
}

// Wire returns how many bytes the target got and sent, with those of TLS.
func (t *tlsTarget) Wire() Traffic { return Traffic{t.wire.up.Load(), t.wire.down.Load()} }

// silentTLS closes without an alert: it might reach a client or not, as the client closes at the
// same time, so that its bytes could not be compared.
type silentTLS struct{ *tls.Conn }

func (c silentTLS) Close() error { return c.NetConn().Close() }

// wireConn counts the bytes of one connection below TLS.
type wireConn struct {
	net.Conn
	target *tlsTarget
}

func (c wireConn) Read(p []byte) (int, error) {
	return countingReader{c.Conn, &c.target.wire.up}.Read(p)
}

func (c wireConn) Write(p []byte) (int, error) {
	return countingWriter{c.Conn, &c.target.wire.down}.Write(p)
}

// dialTLS opens a connection to the target through a client, and TLS 1.3 over it.
func (t *tlsTarget) dialTLS(c *Client) (*tls.Conn, error) {
	conn, err := c.Dial(t.Addr())
	if err != nil {
		return nil, err
	}
	inside := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err := inside.Handshake(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return inside, nil
}
