package hysteria

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"time"

	"github.com/apernet/quic-go"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/transport/internet"
)

const (
	// sessionQueue is how many messages wait until a session's proxy takes them. More are
	// dropped, as the network drops datagrams. Each has 1,200 bytes at the most.
	sessionQueue = 256
	// maxSessions bounds the sessions of one connection. A client has one for each of its
	// sockets.
	maxSessions = 4096
	idlePoll    = time.Second
)

// sessions are the sessions of datagrams of one connection. mu guards open.
type sessions struct {
	conn *quic.Conn
	user *protocol.MemoryUser
	idle time.Duration

	mu   sync.Mutex
	open map[uint32]*DatagramConn
}

// serveDatagrams gives each new session of a client to accept, until the connection ends. A
// session without a message in idle seconds ends.
func serveDatagrams(conn *quic.Conn, user *protocol.MemoryUser, idle int64, accept internet.ConnHandler) {
	s := &sessions{conn: conn, user: user, idle: time.Duration(idle) * time.Second, open: map[uint32]*DatagramConn{}}
	go s.receive(accept)
	go s.endIdle()
}

func (s *sessions) receive(accept internet.ConnHandler) {
	for {
		message, err := s.conn.ReceiveDatagram(context.Background())
		if err != nil {
			s.endAll()
			return
		}
		if len(message) < 4 {
			continue
		}
		session, isNew := s.of(binary.BigEndian.Uint32(message))
		if session == nil {
			continue
		}
		session.deliver(message)
		if isNew {
			accept(session)
		}
	}
}

// of returns the session with that ID, a new one where there is none; nil where there are too
// many.
func (s *sessions) of(id uint32) (_ *DatagramConn, isNew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.open[id]
	if session != nil || len(s.open) >= maxSessions {
		return session, false
	}
	session = &DatagramConn{sessions: s, id: id, messages: make(chan []byte, sessionQueue), closed: make(chan struct{}), used: time.Now()}
	s.open[id] = session
	return session, true
}

func (s *sessions) endIdle() {
	tick := time.NewTicker(idlePoll)
	defer tick.Stop()
	for {
		select {
		case <-s.conn.Context().Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			for _, session := range s.open {
				if session.idleSince(now) > s.idle {
					session.endLocked()
				}
			}
			s.mu.Unlock()
		}
	}
}

func (s *sessions) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, session := range s.open {
		session.endLocked()
	}
}

// DatagramConn is one session of datagrams: the messages that a client sends from one of its
// sockets, and the answers. A message is the client's datagram or a fragment of it, with
// Hysteria's header. One goroutine may read. Lock sessions.mu before mu. mu guards used.
type DatagramConn struct {
	sessions *sessions
	id       uint32
	messages chan []byte
	closed   chan struct{}

	mu   sync.Mutex
	used time.Time
}

func (c *DatagramConn) deliver(message []byte) {
	select {
	case c.messages <- message:
	default: // as the network drops datagrams
	}
}

func (c *DatagramConn) touch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = time.Now()
}

func (c *DatagramConn) idleSince(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.used)
}

// endLocked ends the session. sessions.mu is held.
func (c *DatagramConn) endLocked() {
	if c.sessions.open[c.id] == c {
		delete(c.sessions.open, c.id)
		close(c.closed)
	}
}

// Receive returns the next message. The caller owns it. It returns io.EOF where the session
// has ended.
func (c *DatagramConn) Receive() ([]byte, error) {
	select {
	case message := <-c.messages:
		c.touch()
		return message, nil
	case <-c.closed:
		return nil, io.EOF
	}
}

// Send sends one message, whose first four bytes it overwrites with the session's ID. It
// returns a *quic.DatagramTooLargeError where the message does not fit into one QUIC packet.
func (c *DatagramConn) Send(message []byte) error {
	select {
	case <-c.closed:
		return io.ErrClosedPipe
	default:
	}
	binary.BigEndian.PutUint32(message, c.id)
	if err := c.sessions.conn.SendDatagram(message); err != nil {
		return err
	}
	c.touch()
	return nil
}

// Read is Receive into p; of a message that is longer than p the end is lost.
func (c *DatagramConn) Read(p []byte) (int, error) {
	message, err := c.Receive()
	return copy(p, message), err
}

func (c *DatagramConn) Write(p []byte) (int, error) { return len(p), c.Send(p) }

// Close ends the session. The client's next message begins another one with the same ID.
func (c *DatagramConn) Close() error {
	c.sessions.mu.Lock()
	defer c.sessions.mu.Unlock()
	c.endLocked()
	return nil
}

// User is the client of the session.
func (c *DatagramConn) User() *protocol.MemoryUser { return c.sessions.user }

// LocalAddr is the connection's.
func (c *DatagramConn) LocalAddr() net.Addr { return c.sessions.conn.LocalAddr() }

// RemoteAddr is the connection's.
func (c *DatagramConn) RemoteAddr() net.Addr { return c.sessions.conn.RemoteAddr() }

// SetDeadline does nothing: idle sessions end by themselves.
func (*DatagramConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (*DatagramConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (*DatagramConn) SetWriteDeadline(time.Time) error { return nil }
