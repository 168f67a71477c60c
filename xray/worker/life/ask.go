package life

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerWithin is how long a peer has to answer. The kernel asks once a second meanwhile,
	// so that a lost packet or two are not taken for a peer that is gone.
	answerWithin = 4 * time.Second
	// answerPoll is how often is looked whether an answer has come.
	answerPoll = 50 * time.Millisecond
)

// Answer is what Ask found out.
type Answer int

const (
	// Unknown peers have no connection in the table (they come over UDP, or through a proxy), or
	// could not be asked.
	Unknown Answer = iota
	// Silent peers answer nothing.
	Silent
	// Alive is a peer that has acknowledged something since it was asked.
	Alive
)

// Ask asks the peers of connections whether they are there, by TCP keepalive, which programs
// do not notice. Peers without a connection in the table are not asked. It returns Alive as soon as
// one answers, Unknown where none has a connection, and Silent once the connections have ended. After
// four seconds it returns Unknown if the silence of one says nothing (see saysNothing), else Silent.
func (t *Table) Ask(ctx context.Context, peers []netip.AddrPort) Answer {
	var asked []*conn
	t.mu.Lock()
	t.sortLocked()
	for _, peer := range peers {
		asked = append(asked, t.conns[Peer(peer)]...)
	}
	t.mu.Unlock()
	if len(asked) == 0 {
		return Unknown
	}
	begin := time.Now()
	for _, c := range asked {
		defer c.ask()()
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	tick := time.NewTicker(answerPoll)
	defer tick.Stop()
	for {
		over := false
		select {
		case <-ctx.Done():
			over = true
		case <-tick.C:
		}
		ended, unclear := 0, false
		for _, c := range asked {
			switch info := c.info(); {
			case info == nil:
				ended++
			case since(info.Last_ack_recv) < time.Since(begin):
				return Alive
			default:
				unclear = unclear || saysNothing(info)
			}
		}
		switch {
		case ended == len(asked) || over && !unclear:
			return Silent
		case over:
			return Unknown
		}
	}
}

// saysNothing tells whether a peer may be there although it does not answer: the kernel sends no
// keepalive while bytes are unacknowledged or wait for room (net/ipv4/tcp_timer.c, tcp_keepalive_timer).
// It sends the bytes again then, or asks for room, up to two minutes apart.
func saysNothing(info *unix.TCPInfo) bool {
	return (info.Unacked > 0 || info.Notsent_bytes > 0) && info.Retransmits < unanswered && info.Probes < unanswered
}

// ask makes the kernel ask the peer now, and then once a second, until the returned function
// is called. To set TCP_KEEPIDLE starts the timer anew (net/ipv4/tcp.c, tcp_sock_set_keepidle_locked).
func (c *conn) ask() (done func()) {
	if c.asked.Add(1) > 1 {
		return func() { c.asked.Add(-1) }
	}
	var before keepAliveOptions
	err := c.control(func(fd uintptr) {
		var err error
		if before, err = keepAliveOf(int(fd)); err == nil {
			_ = setKeepAlive(int(fd), 1, 1, max(before.count, keepCount))
		}
	})
	return func() {
		if err == nil && before.idle > 0 {
			_ = c.control(func(fd uintptr) {
				_ = errors.Join(setKeepAlive(int(fd), before.idle, before.interval, before.count),
					unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, before.on))
			})
		}
		c.asked.Add(-1)
	}
}

// info returns what the kernel knows of the connection; nil once it is closed.
func (c *conn) info() (info *unix.TCPInfo) {
	err := c.control(func(fd uintptr) {
		got, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil && got.State != stateClose {
			info = got
		}
	})
	if err != nil {
		return nil
	}
	return info
}
