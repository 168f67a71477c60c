package traffic

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtls/xray-core/common/buf"

	"nodeagent/internal/counters"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/life"
)

// devices are a client's devices, and a registry that asks them.
type devices struct {
	t        *testing.T
	registry *Registry
	user     *user

	mu     sync.Mutex
	answer map[netip.Addr]life.Answer
	asked  []netip.Addr
	ended  []netip.AddrPort
	take   time.Duration // how long an answer takes
}

func newDevices(t *testing.T, limits state.Limits) *devices {
	d := &devices{t: t, registry: NewRegistry(func(ipc.Message) {}), answer: map[netip.Addr]life.Answer{}}
	d.registry.ask = func(_ context.Context, peers []netip.AddrPort) life.Answer {
		time.Sleep(d.take)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.asked = append(d.asked, peers[0].Addr())
		return d.answer[peers[0].Addr()]
	}
	d.registry.end = func(peers []netip.AddrPort) { d.ended = append(d.ended, peers...) }
	d.registry.Put("in", []state.Client{{Email: "alice", Group: "alice", Limits: limits}}, []*counters.Slot{{}})
	d.user, _ = d.registry.lookup("in", "alice")
	return d
}

// open opens a stream from an address, as Dispatcher.admit does.
func (d *devices) open(from string) (*stream, error) {
	s := &stream{user: d.user, source: netip.MustParseAddr(from)}
	s.peer, s.place = netip.AddrPortFrom(s.source, 1), d.registry.place(s.source)
	s.ctx, s.cancel = context.WithCancel(d.t.Context())
	err := d.registry.open(s)
	if err != nil && d.registry.makeRoom(s) {
		err = d.registry.open(s)
	}
	return s, err
}

func (d *devices) is(what string, err, want error) {
	d.t.Helper()
	if !errors.Is(err, want) {
		d.t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// The streams of an address that a phone has left end when it comes from another one, and count
// no more.
func TestAPhoneThatMoves(t *testing.T) {
	d := newDevices(t, state.Limits{IPs: 1, Connections: 2})
	first, err := d.open("192.0.2.1")
	d.is("the first", err, nil)
	second, err := d.open("192.0.2.1")
	d.is("the second", err, nil)
	d.answer[first.source] = life.Silent
	moved, err := d.open("192.0.2.2")
	d.is("the moved one", err, nil)
	if !first.dead.Load() || !second.dead.Load() || moved.dead.Load() || !slices.Equal(d.ended, []netip.AddrPort{first.peer}) {
		t.Errorf("dead: %t, %t, %t; ended %v", first.dead.Load(), second.dead.Load(), moved.dead.Load(), d.ended)
	}
	for _, s := range []*stream{first, second} {
		d.registry.close(s)
	}
	if n, streams := len(d.user.group.addresses), d.user.group.streams; n != 1 || streams != 1 {
		t.Errorf("it has %d addresses and %d streams", n, streams)
	}
	d.registry.close(moved)
	if n, streams := len(d.user.group.addresses), d.user.group.streams; n != 0 || streams != 0 {
		t.Errorf("at the end it has %d addresses and %d streams", n, streams)
	}
}

// A second device is refused while the first one answers, or can't be asked. It does not make
// the worker ask all the time.
func TestASecondDevice(t *testing.T) {
	for name, answer := range map[string]life.Answer{"which answers": life.Alive, "which can't be asked": life.Unknown} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDevices(t, state.Limits{IPs: 1})
				first, err := d.open("192.0.2.1")
				d.is("the first", err, nil)
				d.answer[first.source] = answer
				for range 100 {
					_, err = d.open("192.0.2.2")
					d.is("another device", err, errTooManyIPs)
				}
				if len(d.asked) != 1 || first.dead.Load() {
					t.Errorf("asked %d times, dead %t", len(d.asked), first.dead.Load())
				}
				time.Sleep(stillThere)
				d.answer[first.source] = life.Silent
				_, err = d.open("192.0.2.2")
				d.is("when the first has gone", err, nil)
			})
		})
	}
}

// A device of which nothing but a stream over UDP is left stays as long as bytes come from it.
func TestADeviceOverUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevices(t, state.Limits{IPs: 1})
		first, err := d.open("192.0.2.1")
		d.is("the first", err, nil)
		d.answer[first.source] = life.Silent // its connections over TCP
		up := uplink{Reader: oneByte{}, stream: first}
		for range 3 {
			time.Sleep(stillThere)
			if _, err := up.ReadMultiBuffer(); err != nil {
				t.Fatal(err)
			}
			_, err = d.open("192.0.2.2")
			d.is("while bytes come from the first", err, errTooManyIPs)
		}
		time.Sleep(stillThere)
		_, err = d.open("192.0.2.2")
		d.is("after the last bytes", err, nil)
	})
}

// A device of which nothing but datagrams of Shadowsocks is left gives room once none has come for half a
// minute. One with a connection over QUIC besides does not: that ends by itself.
func TestADeviceOfDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevices(t, state.Limits{IPs: 1})
		quic, err := d.open("192.0.2.1")
		d.is("a connection over QUIC", err, nil)
		first, err := d.open("192.0.2.1")
		d.is("datagrams", err, nil)
		first.datagrams = true
		time.Sleep(2 * datagramsRest)
		_, err = d.open("192.0.2.2")
		d.is("while the connection is open", err, errTooManyIPs)
		d.registry.close(quic)
		up := uplink{Reader: oneByte{}, stream: first}
		for range 3 {
			if _, err := up.ReadMultiBuffer(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(datagramsRest - time.Second)
			_, err = d.open("192.0.2.2")
			d.is("while datagrams come", err, errTooManyIPs)
		}
		time.Sleep(stillThere)
		_, err = d.open("192.0.2.2")
		d.is("after the last datagram", err, nil)
		if !first.dead.Load() {
			t.Error("the first device has a stream")
		}
	})
}

// A device of datagrams of SOCKS is asked over the TCP connection that it has when it is asked, which is
// not always the one that it had when the datagrams began.
func TestADeviceOfDatagramsOfSOCKS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevices(t, state.Limits{IPs: 1})
		first, err := d.open("192.0.2.1")
		d.is("datagrams", err, nil)
		before, heir := netip.MustParseAddrPort("192.0.2.1:1001"), netip.MustParseAddrPort("192.0.2.1:1002")
		control, answer := before, map[netip.AddrPort]life.Answer{before: life.Alive}
		first.ctx = AskedBy(first.ctx, func() netip.AddrPort { return control })
		first.fromDatagrams("socks")
		d.registry.ask = func(_ context.Context, peers []netip.AddrPort) life.Answer { return answer[peers[0]] }
		_, err = d.open("192.0.2.2")
		d.is("while the device answers", err, errTooManyIPs)
		time.Sleep(stillThere)
		control, answer = heir, map[netip.AddrPort]life.Answer{heir: life.Silent} // before has ended: it can't be asked
		_, err = d.open("192.0.2.2")
		d.is("when its other connection does not answer", err, nil)
	})
}

// oneByte has a byte each time.
type oneByte struct{}

func (oneByte) ReadMultiBuffer() (buf.MultiBuffer, error) {
	return buf.MergeBytes(nil, []byte("x")), nil
}

// Only the devices that have gone make room.
func TestOneOfTwoDevicesMoves(t *testing.T) {
	d := newDevices(t, state.Limits{IPs: 2})
	here, err := d.open("192.0.2.1")
	d.is("the first", err, nil)
	gone, err := d.open("192.0.2.2")
	d.is("the second", err, nil)
	d.answer[here.source], d.answer[gone.source] = life.Alive, life.Silent
	_, err = d.open("192.0.2.3")
	d.is("the moved one", err, nil)
	if here.dead.Load() || !gone.dead.Load() {
		t.Errorf("dead: %t, %t", here.dead.Load(), gone.dead.Load())
	}
}

// Many streams that come at once share one question. A stream from the old address that comes
// meanwhile shows that it is there.
func TestStreamsShareAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevices(t, state.Limits{IPs: 1})
		d.take = time.Second
		old, err := d.open("192.0.2.1")
		d.is("the first", err, nil)
		d.answer[old.source] = life.Silent
		var comers sync.WaitGroup
		for range 50 {
			comers.Go(func() {
				_, err := d.open("192.0.2.2")
				d.is("the moved one", err, nil)
			})
		}
		comers.Wait()
		if len(d.asked) != 1 {
			t.Errorf("asked %d times", len(d.asked))
		}

		d = newDevices(t, state.Limits{IPs: 1})
		d.take = time.Second
		old, err = d.open("192.0.2.1")
		d.is("the first", err, nil)
		d.answer[old.source] = life.Silent
		comers.Go(func() {
			_, err := d.open("192.0.2.2")
			d.is("another device", err, errTooManyIPs)
		})
		synctest.Wait()
		_, err = d.open("192.0.2.1")
		d.is("a sign of life", err, nil)
		comers.Wait()
		if old.dead.Load() {
			t.Error("the first device was cut")
		}
	})
}

// IPv6 addresses count by the network of a host.
func TestPlaces(t *testing.T) {
	r := NewRegistry(func(ipc.Message) {})
	same := func(a, b string) bool { return r.place(netip.MustParseAddr(a)) == r.place(netip.MustParseAddr(b)) }
	if !same("2001:db8::1", "2001:db8::ffff:2") || same("2001:db8::1", "2001:db8:0:1::1") || same("192.0.2.1", "192.0.2.2") {
		t.Error("by /64 it is not so")
	}
	r.IPv6Prefix = 128
	if same("2001:db8::1", "2001:db8::2") || !same("2001:db8::1", "2001:db8::1") {
		t.Error("by /128 it is not so")
	}
	if r.place(netip.Addr{}).IsValid() {
		t.Error("no address became one")
	}
}
