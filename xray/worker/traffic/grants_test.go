package traffic

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtls/xray-core/common/buf"

	"nodeagent/internal/counters"
	"nodeagent/internal/grant"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// grantedWorker is the part of a worker that enforces grants, with one client.
type grantedWorker struct {
	t        *testing.T
	registry *Registry
	user     *user
}

// newGrantedWorker makes a worker whose slots are shared with others, as those of a counters file.
func newGrantedWorker(t *testing.T, shared []counters.Slot) *grantedWorker {
	t.Helper()
	w := &grantedWorker{t: t, registry: NewRegistry(func(ipc.Message) {})}
	w.registry.SlotOf = func(i uint32) (*counters.Slot, error) {
		if int(i) >= len(shared) {
			return nil, errors.New("no such slot")
		}
		return &shared[i], nil
	}
	go w.registry.WatchGrants(t.Context())
	return w
}

func (w *grantedWorker) grant(g *grant.Grant) {
	c := state.Client{Email: "a", Group: "g", Grant: g}
	if g == nil {
		c.Group = ""
	}
	w.registry.Put("in", []state.Client{c}, []*counters.Slot{new(counters.Slot)})
	w.user, _ = w.registry.lookup("in", "a")
}

func (w *grantedWorker) open() (*stream, error) {
	s := &stream{user: w.user, cancel: func() {}, ctx: w.t.Context()}
	return s, w.registry.open(s)
}

// bytesOnce is a reader of n bytes at a time.
type bytesOnce int

func (n bytesOnce) ReadMultiBuffer() (buf.MultiBuffer, error) {
	return buf.MergeBytes(nil, bytes.Repeat([]byte{1}, int(n))), nil
}

// A grant is spent by both directions, here and by another worker. It ends the streams of both, also
// those on which nothing moves, and keeps new ones out until there is another grant. Bytes beyond the
// end are neither passed nor counted.
func TestGrantEndsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := make([]counters.Slot, 2)
		one, other := newGrantedWorker(t, shared), newGrantedWorker(t, shared)
		limited := &grant.Grant{ID: "first", Bytes: 1000, Until: 1000, ExpiresAt: time.Now().Add(time.Hour)}
		for _, w := range []*grantedWorker{one, other} {
			w.grant(limited)
		}
		idle, err := one.open()
		if err != nil {
			t.Fatal(err)
		}
		moves, err := other.open()
		if err != nil {
			t.Fatal(err)
		}
		up := &uplink{bytesOnce(600), moves}
		if mb, err := up.ReadMultiBuffer(); err != nil || mb.Len() != 600 {
			t.Fatalf("%d bytes passed (%v)", mb.Len(), err)
		}
		if err := moves.pass(500); err != nil { // the end is in these
			t.Fatal(err)
		}
		if err := moves.pass(1); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a byte after the end: %v", err)
		}
		if _, err := up.ReadMultiBuffer(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("bytes after the end: %v", err)
		}
		time.Sleep(grantsEvery)
		synctest.Wait()
		if !idle.dead.Load() || !moves.dead.Load() {
			t.Errorf("ended: %t and %t", idle.dead.Load(), moves.dead.Load())
		}
		slot := other.user.slot
		if used, counted := shared[0].Up.Load(), slot.Up.Load()+slot.Down.Load(); used != 1100 || counted != 1100 {
			t.Errorf("%d bytes are counted for the grant and %d for the client, want 1100", used, counted)
		}
		for _, w := range []*grantedWorker{one, other} {
			if _, err := w.open(); !errors.Is(err, errGrantOver) {
				t.Errorf("a stream after the end: %v", err)
			}
			w.grant(&grant.Grant{ID: "second", Bytes: 10, Until: 10, Slot: 1, ExpiresAt: time.Now().Add(time.Hour)})
			if _, err := w.open(); err != nil {
				t.Errorf("a stream under another grant: %v", err)
			}
		}
	})
}

// A change of the grant keeps the streams, and other bytes hold at once. An expired grant ends them,
// and so does one whose counter does not exist.
func TestOtherGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantedWorker(t, make([]counters.Slot, 2))
		later := time.Now().Add(time.Hour)
		w.grant(nil)
		s, err := w.open()
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []*grant.Grant{
			{ID: "a", Bytes: 200, Until: 200, ExpiresAt: later},
			{ID: "a", Bytes: 400, Until: 400, ExpiresAt: later},
			nil,
			{ID: "b", Bytes: 200, Until: 200, Slot: 1, ExpiresAt: later},
		} {
			w.grant(g)
			if err := s.pass(150); err != nil {
				t.Fatalf("under %+v: %v", g, err)
			}
			time.Sleep(grantsEvery)
			synctest.Wait()
			if s.dead.Load() {
				t.Fatalf("the stream has ended under %+v", g)
			}
		}
		w.grant(&grant.Grant{ID: "b", Bytes: 1 << 40, Until: 1 << 40, Slot: 1, ExpiresAt: time.Now().Add(time.Second)})
		time.Sleep(time.Second + grantsEvery)
		synctest.Wait()
		if !s.dead.Load() {
			t.Error("the stream goes on though the grant has expired")
		}
		w.grant(&grant.Grant{ID: "c", Bytes: 10, Until: 10, Slot: 7, ExpiresAt: later})
		if _, err := w.open(); !errors.Is(err, errGrantOver) {
			t.Errorf("a stream under a grant that nothing counts: %v", err)
		}
	})
}
