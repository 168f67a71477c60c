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
	// Unknown peers have no connection in the table: they come over UDP, or through a proxy.
	Unknown Answer = iota
	// Silent peers answer nothing.
	Silent
	// Alive is a peer that has acknowledged something since it was asked.
	Alive
)

// Ask asks the peers of connections whether they are there, by TCP keepalive, which programs
// do not notice. It returns Alive as soon as one answers, Unknown as soon as none is left that
// could, and Silent after four seconds or once the connections have ended.
func (t *Table) Ask(ctx context.Context, peers []netip.AddrPort) Answer {
	var asked []*conn
	t.mu.Lock()
	for _, peer := range peers {
		conns := t.conns[Peer(peer)]
		if len(conns) == 0 {
			t.mu.Unlock()
			return Unknown
		}
		asked = append(asked, conns...)
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
		select {
		case <-ctx.Done():
			return Silent
		case <-tick.C:
		}
		ended := 0
		for _, c := range asked {
			switch answered, open := c.answered(begin); {
			case answered:
				return Alive
			case !open:
				ended++
			}
		}
		if ended == len(asked) {
			return Silent
		}
	}
}

// ask makes the kernel ask the peer now, and then once a second, until the returned function
// is called. To set TCP_KEEPIDLE starts the timer anew (net/ipv4/tcp.c, tcp_sock_set_keepidle_locked).
func (c *conn) ask() (done func()) {
	if c.asked.Add(1) > 1 {
		return func() { c.asked.Add(-1) }
	}
	var before keepAliveOptions
	err := c.raw.Control(func(fd uintptr) {
		var err error
		if before, err = keepAliveOf(int(fd)); err == nil {
			_ = setKeepAlive(int(fd), 1, 1, max(before.count, keepCount))
		}
	})
	return func() {
		if err == nil && before.idle > 0 {
			_ = c.raw.Control(func(fd uintptr) {
				_ = errors.Join(setKeepAlive(int(fd), before.idle, before.interval, before.count),
					unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, before.on))
			})
		}
		c.asked.Add(-1)
	}
}

// answered tells whether something has come from the peer since begin, and whether the
// connection is open.
func (c *conn) answered(begin time.Time) (answered, open bool) {
	err := c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.State == stateClose {
			return
		}
		open = true
		answered = since(info.Last_ack_recv) < time.Since(begin)
	})
	return answered && err == nil, open && err == nil
}
