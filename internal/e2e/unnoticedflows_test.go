package e2e

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// flow is a client whose application sends datagrams and waits for each answer.
type flow struct {
	row  rowInbound
	conn *net.UDPConn
	echo *udpEcho
	back atomic.Int64 // datagrams that came back
	lost atomic.Int64 // datagrams that did not within flowPatience
}

// flowPatience is after how long a datagram counts as lost, on a machine that does other things too.
const flowPatience = 15 * time.Second

// takesDatagrams reports whether an inbound takes datagrams that belong together by their source.
func (r protocolRow) takesDatagrams() bool {
	return r.more == nil && (r.protocol == "socks" || r.protocol == "shadowsocks")
}

// flowThrough starts a flow through a stock client of the row. Its first datagram has come back.
func (u *unnoticed) flowThrough(r rowInbound) *flow {
	f := &flow{row: r, echo: u.udpEcho()}
	f.conn = u.udpThrough(r, u.user, f.echo)
	must(u.t, f.bounce())
	return f
}

// bounce sends a datagram with its number, and waits for it.
func (f *flow) bounce() error {
	number := uint64(f.back.Load() + f.lost.Load())
	datagram := make([]byte, 8+rand.IntN(1200))
	binary.BigEndian.PutUint64(datagram, number)
	if _, err := f.conn.Write(datagram); err != nil {
		return err
	}
	if err := f.conn.SetReadDeadline(time.Now().Add(flowPatience)); err != nil {
		return err
	}
	buffer := make([]byte, maxDatagram)
	for {
		n, err := f.conn.Read(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			f.lost.Add(1)
			return nil
		case err != nil:
			return err
		case n == len(datagram) && binary.BigEndian.Uint64(buffer) == number:
			f.back.Add(1)
			return nil
		}
	}
}

// flowOn sends datagrams until the test stops it.
func (u *unnoticed) flowOn(f *flow) {
	for {
		select {
		case <-u.stop:
			return
		case <-time.After(rand.N(u.rest)):
		}
		if err := f.bounce(); err != nil {
			u.t.Errorf("%s: datagrams ended after %d: %v", f.row.name, f.back.Load(), err)
			return
		}
	}
}

// flowed checks, once the clients have stopped, that no datagram was lost, and that each flow has left the
// node by one port from its beginning to its end.
func (u *unnoticed) flowed() {
	u.t.Helper()
	for _, f := range u.flows {
		u.t.Logf("%s: %d datagrams came back, %d were lost", f.row.name, f.back.Load(), f.lost.Load())
		if lost := f.lost.Load(); lost > 0 {
			u.t.Errorf("%s: %d datagrams were lost", f.row.name, lost)
		}
		if n := f.echo.sources(); n != 1 {
			u.t.Errorf("%s: the datagrams left the node by %d ports, want one", f.row.name, n)
		}
	}
}
