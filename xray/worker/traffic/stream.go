package traffic

import (
	"context"
	"hash/maphash"
	"io"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/buf"

	"nodeagent/internal/counters"
)

// stream is one proxied connection, or one UDP association, through the
// dispatcher. A person has many.
type stream struct {
	user   *user                      // nil for one that is attributed to nobody
	name   string                     // of the account of one that is nobody's; may be empty
	group  atomic.Pointer[limitGroup] // nil without limits
	source netip.Addr                 // the client's address, IPv4 never mapped into IPv6
	ctx    context.Context
	cancel context.CancelFunc
	conn   net.Conn // the inbound's connection; may be nil
	reader buf.Reader
	writer buf.Writer
	dead   atomic.Bool

	// The bytes go to the outbound's slot too. Until the outbound is chosen
	// (sniffing reads before) they wait here.
	outbound             atomic.Pointer[counters.Slot]
	waitingUp, waitingDn atomic.Uint64
}

type streamKey struct{}

// StreamFrom returns the stream that ctx belongs to, nil for none.
func StreamFrom(ctx context.Context) *stream {
	s, _ := ctx.Value(streamKey{}).(*stream)
	return s
}

// AttachOutbound gives the stream its outbound's counters, and hands over what
// was counted before. False where it has one already.
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
	if out := s.outbound.Load(); out != nil { // attached meanwhile
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

// join puts an open stream under other limits; nil for none. Called under its user's
// lock.
func (s *stream) join(g *limitGroup) {
	before := s.group.Swap(g)
	if before == g {
		return
	}
	if before != nil {
		before.leave(s.source)
	}
	if g != nil {
		g.enter(s.source)
	}
}

// kill ends the stream at once, and with it the carrier it came through (a mux
// or QUIC connection), which belongs to the same client.
func (s *stream) kill() {
	s.dead.Store(true)
	s.cancel()
	if s.conn != nil {
		_ = s.conn.Close()
	}
	common.Interrupt(s.reader)
	common.Interrupt(s.writer)
}

// uplink counts what comes from the client.
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
	r.stream.addUp(uint64(mb.Len()))
	if g := r.stream.group.Load(); g != nil && !mb.IsEmpty() {
		if waitErr := g.wait(r.stream.ctx, &g.up, int(mb.Len())); waitErr != nil {
			buf.ReleaseMulti(mb)
			return nil, waitErr
		}
	}
	return mb, err
}

func (r *uplink) Interrupt() { common.Interrupt(r.Reader) }

// downlink holds back what goes to a client with a rate, and ends with the
// stream. It does not count: see downCounter.
type downlink struct {
	buf.Writer
	stream *stream
}

func (w *downlink) WriteMultiBuffer(mb buf.MultiBuffer) error {
	if g := w.stream.group.Load(); g != nil {
		if err := g.wait(w.stream.ctx, &g.down, int(mb.Len())); err != nil {
			buf.ReleaseMulti(mb)
			return err
		}
	}
	if w.stream.dead.Load() {
		buf.ReleaseMulti(mb)
		return io.ErrClosedPipe
	}
	return w.Writer.WriteMultiBuffer(mb)
}

func (w *downlink) Close() error { return common.Close(w.Writer) }
func (w *downlink) Interrupt()   { common.Interrupt(w.Writer) }

// downCounter is what xray-core adds the bytes to the client to.
type downCounter struct{ stream *stream }

func (c downCounter) Add(n int64) int64 {
	if !c.stream.dead.Load() { // what a dead stream is given is not sent
		c.stream.addDown(uint64(n))
	}
	return 0
}

// Value and Set belong to the interface; xray-core asks neither of a counter
// that it was handed this way.
func (downCounter) Value() int64    { return 0 }
func (downCounter) Set(int64) int64 { return 0 }

var accountSeed = maphash.MakeSeed()

func hashAccount(account []byte) uint64 { return maphash.Bytes(accountSeed, account) }
