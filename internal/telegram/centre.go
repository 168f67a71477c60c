package telegram

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Centre stands in for a Telegram data centre: it accepts the streams that a proxy opens.
type Centre struct {
	listener net.Listener
	handle   func(net.Conn)

	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	serving sync.WaitGroup
}

// NewCentre listens on loopback. handle is called with each stream after its handshake, for
// several streams at a time, and closes the stream.
func NewCentre(handle func(net.Conn)) (*Centre, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	c := &Centre{listener: l, handle: handle, conns: map[net.Conn]struct{}{}}
	c.serving.Go(func() {
		for {
			accepted, err := l.Accept()
			if err != nil {
				return
			}
			c.serving.Go(func() { c.serve(accepted) })
		}
	})
	return c, nil
}

// Addr returns the host and port on which the centre listens.
func (c *Centre) Addr() string { return c.listener.Addr().String() }

// Close closes the listener and all streams, and returns once every handle has returned.
func (c *Centre) Close() error {
	err := c.listener.Close()
	c.mu.Lock()
	for open := range c.conns {
		_ = open.Close()
	}
	c.conns = nil
	c.mu.Unlock()
	c.serving.Wait()
	return err
}

func (c *Centre) serve(accepted net.Conn) {
	defer accepted.Close()
	c.mu.Lock()
	if c.conns == nil {
		c.mu.Unlock()
		return
	}
	c.conns[accepted] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.conns, accepted)
		c.mu.Unlock()
	}()
	stream, _, err := Accept(accepted, nil)
	if err != nil {
		return // a proxy connects without a handshake to see whether the centre is reachable
	}
	c.handle(stream)
}

// ErrUnknownSecret means that the client's secret is none of those that Accept was given.
var ErrUnknownSecret = errors.New("the handshake was made with none of the secrets")

// Accept reads a handshake from c. It returns the stream, which owns c, and the index of the
// client's secret, or ErrUnknownSecret. Without secrets Accept reads the handshake that a
// proxy makes with a data centre, and the index is -1.
func Accept(c net.Conn, secrets [][]byte) (net.Conn, int, error) {
	var n [initSize]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return nil, 0, fmt.Errorf("read the handshake: %w", err)
	}
	try := func(secret []byte) (net.Conn, bool) {
		theirs, ours := streams(n, secret)
		open := n
		theirs.XORKeyStream(open[:], open[:])
		return &conn{Conn: c, out: ours, in: theirs}, [4]byte(open[56:60]) == paddedIntermediate
	}
	if len(secrets) == 0 {
		if stream, is := try(nil); is {
			return stream, -1, nil
		}
	}
	for i, secret := range secrets {
		if stream, is := try(secret); is {
			return stream, i, nil
		}
	}
	return nil, 0, ErrUnknownSecret
}
