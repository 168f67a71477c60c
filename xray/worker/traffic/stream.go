package traffic

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/session"

	"nodeagent/internal/counters"
)

// stream is one proxied connection, or one UDP association, that passes the dispatcher.
type stream struct {
	user    *user                      // nil for a stream that belongs to no client
	name    string                     // the email or account name that the inbound gave; may be empty
	group   atomic.Pointer[limitGroup] // nil without limits; written while user.mu is held
	source  netip.Addr                 // the client's address, as SourceAddress returns it
	peer    netip.AddrPort             // source with its port
	control func() netip.AddrPort      // of datagrams of SOCKS; see AskedBy. It is nil for others
	place   netip.Addr                 // what limitIps counts: see Registry.place
	ctx     context.Context
	cancel  context.CancelFunc
	conn    net.Conn // the inbound's connection; may be nil
	reader  buf.Reader
	writer  buf.Writer
	// inbound is the inbound's own session, which it changes when the bytes to the client may
	// be spliced; nil without one. The outbounds get a copy that forbids it.
	inbound *session.Inbound
	// up and down are the reader and the writer that the outbounds get, and session is their copy of
	// inbound. They are here so that a stream needs one piece of memory for all of them.
	up      uplink
	down    downlink
	session session.Inbound
	spliced atomic.Pointer[net.TCPConn] // the client's socket, once bytes are spliced to it
	bare    *net.TCPConn                // see bareSocket; of streams that may be spliced
	dead    atomic.Bool                 // kill has been called; bytes are neither passed nor counted any more
	// datagrams tells that the stream is of datagrams of Shadowsocks, which no connection carries.
	datagrams bool
	// heard is when bytes last came from a client with limits, as time.Time.UnixNano has it.
	heard atomic.Int64

	before, next *stream // in streams.first; guarded by user.mu

	// The bytes are also added to the outbound's slot. Sniffing reads the first bytes before
	// the outbound is chosen. waitingUp and waitingDn hold their number until then.
	outbound             atomic.Pointer[counters.Slot]
	waitingUp, waitingDn atomic.Uint64
}

type streamKey struct{}

// StreamFrom returns the stream to which ctx belongs, or nil.
func StreamFrom(ctx context.Context) *stream {
	s, _ := ctx.Value(streamKey{}).(*stream)
	return s
}

// AttachOutbound makes the stream add its bytes to slot, the slot of its outbound, and adds
// the bytes that were counted before. It returns false, and changes nothing, if the stream
// has an outbound's slot already.
func (s *stream) AttachOutbound(slot *counters.Slot) bool {
	if !s.outbound.CompareAndSwap(nil, slot) {
		return false
	}
	slot.Up.Add(s.waitingUp.Swap(0))
	slot.Down.Add(s.waitingDn.Swap(0))
	return true
}

func (s *stream) addUp(n uint64) {
	if n == 0 || !counting {
		return
	}
	if s.user != nil {
		s.user.slot.Up.Add(n)
	}
	if out := s.outbound.Load(); out != nil {
		out.Up.Add(n)
		return
	}
	s.waitingUp.Add(n)
	if out := s.outbound.Load(); out != nil { // AttachOutbound ran since the first Load
		out.Up.Add(s.waitingUp.Swap(0))
	}
}

func (s *stream) addDown(n uint64) {
	if n == 0 || !counting {
		return
	}
	if s.user != nil {
		s.user.slot.Down.Add(n)
	}
	if out := s.outbound.Load(); out != nil {
		out.Down.Add(n)
		return
	}
	s.waitingDn.Add(n)
	if out := s.outbound.Load(); out != nil {
		out.Down.Add(s.waitingDn.Swap(0))
	}
}

// join moves an open stream to the group g, or out of its group if g is nil. It is called
// while user.mu is held.
func (s *stream) join(g *limitGroup) {
	before := s.group.Swap(g)
	if before == g {
		return
	}
	if before != nil {
		before.leave(s)
	}
	if g != nil {
		g.enter(s)
	}
}

// kill ends the stream at once. It also closes the mux or QUIC connection that carries the
// stream, because that connection belongs to the same client.
func (s *stream) kill() {
	s.dead.Store(true)
	s.cancel()
	if socket := s.spliced.Load(); socket != nil {
		// Not through TLS, which would wait for room for an alert, and which Vision has left.
		_ = socket.Close()
	}
	if s.conn != nil {
		_ = s.conn.Close()
	}
	common.Interrupt(s.reader)
	common.Interrupt(s.writer)
}

// uplink counts the bytes from the client and holds them back according to its rate.
type uplink struct {
	buf.Reader
	stream *stream
}

func (r *uplink) ReadMultiBuffer() (buf.MultiBuffer, error) {
	mb, err := r.Reader.ReadMultiBuffer()
	if r.stream.dead.Load() {
		buf.ReleaseMulti(mb)
		return nil, io.ErrClosedPipe
	}
	g := r.stream.group.Load()
	if g != nil && !r.stream.mayPass(g, int(mb.Len())) {
		buf.ReleaseMulti(mb)
		return nil, io.ErrClosedPipe
	}
	r.stream.addUp(uint64(mb.Len()))
	if g != nil && !mb.IsEmpty() {
		r.stream.heard.Store(time.Now().UnixNano())
		if waitErr := g.wait(r.stream.ctx, &g.up, int(mb.Len())); waitErr != nil {
			buf.ReleaseMulti(mb)
			return nil, waitErr
		}
	}
	return mb, err
}

func (r *uplink) Interrupt() { common.Interrupt(r.Reader) }

// downlink counts the bytes to the client and holds them back according to its rate. It fails
// once the stream is killed. Spliced bytes do not pass it: see stream.pass.
type downlink struct {
	buf.Writer
	stream *stream
}

func (w *downlink) WriteMultiBuffer(mb buf.MultiBuffer) error {
	if err := w.stream.pass(int(mb.Len())); err != nil {
		buf.ReleaseMulti(mb)
		return err
	}
	return w.Writer.WriteMultiBuffer(mb)
}

func (w *downlink) Close() error { return common.Close(w.Writer) }
func (w *downlink) Interrupt()   { common.Interrupt(w.Writer) }

// pass counts n bytes to the client, and returns once the client's rate lets them pass. They
// are counted before they are sent, so that a worker that is killed has counted all that its
// clients got.
func (s *stream) pass(n int) error {
	if s.dead.Load() {
		return io.ErrClosedPipe
	}
	g := s.group.Load()
	if g != nil && !s.mayPass(g, n) {
		return io.ErrClosedPipe
	}
	s.addDown(uint64(n))
	if g != nil {
		if err := g.wait(s.ctx, &g.down, n); err != nil {
			return err
		}
	}
	if s.dead.Load() {
		return io.ErrClosedPipe
	}
	return nil
}
