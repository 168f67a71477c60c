package traffic

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	gonet "net"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/stat"
	xtls "github.com/xtls/xray-core/transport/internet/tls"

	"nodeagent/internal/counters"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// spliceRig is a stream between the sockets of a target and of a client, which xray-core's
// freedom outbound would copy.
type spliceRig struct {
	stream         *stream
	slot           *counters.Slot
	conn           stat.Connection // to the target
	target, client *gonet.TCPConn  // the far ends
	written        atomic.Int64    // bytes that were not spliced
	activity       atomic.Int64
	done           chan error // what the copy returned
}

type dialFunc func() (stat.Connection, error)

func (d dialFunc) Dial(context.Context, net.Destination) (stat.Connection, error) { return d() }
func (dialFunc) DestIpAddress() net.IP                                            { return nil }
func (dialFunc) SetOutboundGateway(context.Context, *session.Outbound)            {}

var _ internet.Dialer = dialFunc(nil)

// Update is called for bytes that the copy writes.
func (r *spliceRig) Update() { r.activity.Add(1) }

// WriteMultiBuffer is the inbound's writer: it writes to the client.
func (r *spliceRig) WriteMultiBuffer(mb buf.MultiBuffer) error {
	r.written.Add(int64(mb.Len()))
	return buf.NewWriter(r.stream.conn).WriteMultiBuffer(mb)
}

func newSpliceRig(t *testing.T, group *limitGroup) *spliceRig {
	t.Helper()
	r := &spliceRig{slot: &counters.Slot{}, done: make(chan error, 1)}
	near, client := xraytest.SocketPair(t)
	toTarget, target := xraytest.SocketPair(t)
	r.client, r.target = client, target
	r.stream = &stream{user: &user{slot: r.slot}, conn: near, writer: r, inbound: &session.Inbound{Name: "socks", CanSpliceCopy: canSplice}}
	r.stream.ctx, r.stream.cancel = context.WithCancel(t.Context())
	t.Cleanup(r.stream.cancel)
	r.stream.group.Store(group)
	r.stream.down = downlink{Writer: r, stream: r.stream}
	dialer := &splicingDialer{dialFunc(func() (stat.Connection, error) { return toTarget, nil }), r.stream}
	conn, err := dialer.Dial(t.Context(), net.TCPDestination(net.LocalHostIP, 1))
	if err != nil {
		t.Fatal(err)
	}
	r.conn = conn
	return r
}

// copy does what the freedom outbound does: it ends when the stream's context does.
func (r *spliceRig) copy() {
	go func() {
		err := buf.Copy(buf.NewReader(r.conn), &r.stream.down, buf.UpdateActivity(r))
		_ = r.stream.conn.Close()
		r.done <- err
	}()
	go func() {
		<-r.stream.ctx.Done()
		_ = r.conn.Close()
	}()
}

func (r *spliceRig) counted() int64 { return int64(r.slot.Down.Load()) }

// ended returns the copy's error. It fails the test if the copy does not end within a second.
func (r *spliceRig) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(time.Second):
		t.Fatal("the copy has not ended")
		return nil
	}
}

// At any moment the client has no byte that is not counted, and nothing is counted that the
// target has not sent. Between two bursts all three numbers are the same. Almost all bytes are
// spliced, and the client gets them in their order. After the target's half-close the client
// gets the end.
func TestSpliceCountsAsItGoes(t *testing.T) {
	r := newSpliceRig(t, nil)
	r.copy()
	random := rand.New(rand.NewPCG(1, 2))
	source, sent, got := rand.NewChaCha8([32]byte{1}), sha256.New(), sha256.New()
	var total, received atomic.Int64
	read := make(chan error, 1)
	go func() {
		block := make([]byte, 100_000)
		for i := 0; ; i++ {
			n, err := r.client.Read(block)
			if received.Add(int64(n)) > r.counted() {
				t.Errorf("the client has %d bytes, and %d are counted", received.Load(), r.counted())
			}
			got.Write(block[:n])
			if err != nil {
				read <- err
				return
			}
			if i%50 == 0 {
				time.Sleep(3 * time.Millisecond) // a slow reader
			}
		}
	}()
	for range 20 {
		burst := make([]byte, 1+random.IntN(6<<20))
		_, _ = source.Read(burst)
		sent.Write(burst)
		total.Add(int64(len(burst)))
		if _, err := r.target.Write(burst); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); received.Load() < total.Load(); {
			if counted := r.counted(); counted > total.Load() {
				t.Fatalf("%d bytes are counted of %d", counted, total.Load())
			}
			if time.Now().After(deadline) {
				t.Fatalf("the client has %d bytes of %d", received.Load(), total.Load())
			}
			time.Sleep(100 * time.Microsecond)
		}
		if r.counted() != total.Load() {
			t.Fatalf("%d bytes are counted, and the client has %d", r.counted(), total.Load())
		}
	}
	if err := r.target.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := r.ended(t); err != nil {
		t.Error(err)
	}
	if err := <-read; !errors.Is(err, io.EOF) {
		t.Errorf("the client's connection ends with %v", err)
	}
	if string(got.Sum(nil)) != string(sent.Sum(nil)) {
		t.Error("the client has other bytes than the target sent")
	}
	if part := float64(r.written.Load()) / float64(total.Load()); part > 0.1 {
		t.Errorf("%.0f%% of the bytes were not spliced", 100*part)
	}
}

// A connection that breaks at either end ends the copy. What is counted and has not reached
// the client is no more than a pipe and the sockets hold.
func TestBrokenConnectionsEnd(t *testing.T) {
	for name, breakIt := range map[string]func(r *spliceRig) error{
		"target": func(r *spliceRig) error { return errors.Join(r.target.SetLinger(0), r.target.Close()) },
		"client": func(r *spliceRig) error { return errors.Join(r.client.SetLinger(0), r.client.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newSpliceRig(t, nil)
			r.copy()
			go func() { _, _ = io.Copy(r.target, endless{}) }()
			if _, err := io.CopyN(io.Discard, r.client, 20<<20); err != nil {
				t.Fatal(err)
			}
			if err := breakIt(r); err != nil {
				t.Fatal(err)
			}
			if name == "target" {
				_, _ = io.Copy(io.Discard, r.client) // what was on the way
			}
			if err := r.ended(t); err == nil {
				t.Error("the copy ended without an error")
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A killed stream ends within a second, whether bytes flow, the target is silent, or the client
// does not read. Nothing is counted afterwards.
func TestKilledSpliceEnds(t *testing.T) {
	for name, begin := range map[string]func(r *spliceRig){
		"flowing": func(r *spliceRig) {
			go func() { _, _ = io.Copy(r.target, endless{}) }()
			go func() { _, _ = io.Copy(io.Discard, r.client) }()
		},
		"a silent target": func(r *spliceRig) {
			_, _ = r.target.Write(make([]byte, 100))
			_, _ = r.target.Write(make([]byte, 100))
			go func() { _, _ = io.Copy(io.Discard, r.client) }()
		},
		"a client that does not read": func(r *spliceRig) {
			go func() { _, _ = io.Copy(r.target, endless{}) }()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newSpliceRig(t, nil)
			r.copy()
			begin(r)
			before := int64(-1)
			for now := r.counted(); now == 0 || now > before && now < 100<<20; now = r.counted() { // until it has begun, or stands still
				before = now
				time.Sleep(50 * time.Millisecond)
			}
			r.stream.kill()
			r.ended(t) //nolint:errcheck // any error will do
			after := r.counted()
			if err := r.client.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r.client); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the client's connection is open")
			}
			if now := r.counted(); now != after {
				t.Errorf("%d bytes are counted after the end", now-after)
			}
		})
	}
}

// kill does not wait for a client that does not read. TLS lies above its socket: Vision has left
// it, but its Close would wait for room for an alert.
func TestKillWaitsForNoReader(t *testing.T) {
	site := httptest.NewUnstartedServer(nil)
	site.StartTLS() // for its certificate
	defer site.Close()
	r := newSpliceRig(t, nil)
	handshake := make(chan error, 1)
	go func() { handshake <- tls.Client(r.client, &tls.Config{InsecureSkipVerify: true}).Handshake() }()
	secure := xtls.Server(r.stream.conn, &tls.Config{Certificates: site.TLS.Certificates}).(*xtls.Conn)
	if err := errors.Join(secure.Handshake(), <-handshake); err != nil {
		t.Fatal(err)
	}
	socket := r.stream.conn
	r.stream.conn, r.stream.inbound.Name = secure, "vless"
	r.stream.down.Writer = buf.NewWriter(socket) // as Vision writes by now
	r.copy()
	go func() { _, _ = io.Copy(r.target, endless{}) }()
	for before := int64(-1); before < r.counted() || before <= 0; time.Sleep(100 * time.Millisecond) { // until the sockets are full
		before = r.counted()
	}
	began := time.Now()
	r.stream.kill()
	if took := time.Since(began); took > 200*time.Millisecond { // TLS waits for 250 ms, REALITY for 5 s
		t.Errorf("kill took %s", took)
	}
	r.ended(t) //nolint:errcheck // any error will do
}

// A rate holds for spliced bytes, also one that comes in the middle.
func TestSpliceWithinARate(t *testing.T) {
	const rate = 2 << 20 // bytes a second
	registry := NewRegistry(func(ipc.Message) {})
	group := registry.joinGroupLocked(state.Client{Group: "g", Limits: state.Limits{Connections: 9}})
	r := newSpliceRig(t, group)
	r.copy()
	go func() { _, _ = io.Copy(r.target, endless{}) }()
	go func() { _, _ = io.Copy(io.Discard, r.client) }()
	for r.counted() < 50<<20 {
		time.Sleep(time.Millisecond)
	}
	group.set(bounds{limits: state.Limits{RateDownBitsPerSecond: 8 * rate}})
	time.Sleep(50 * time.Millisecond) // the step that is under way
	before := r.counted()
	last := before
	for began := time.Now(); time.Since(began) < time.Second; time.Sleep(time.Millisecond) {
		now := r.counted()
		if now-last > pipeSize/2 {
			t.Errorf("%d bytes were counted at once, long before the client gets them", now-last)
		}
		last = now
	}
	if n := r.counted() - before; n < rate/2 || n > rate*3/2+pipeSize {
		t.Errorf("%d bytes passed in a second at %d", n, rate)
	}
	if r.written.Load() > r.counted()/10 {
		t.Errorf("%d bytes of %d were not spliced", r.written.Load(), r.counted())
	}
}

// xray-core's timer of idle connections sees each message of a slow target, and a busy one
// several times a second.
func TestSplicedConnectionsAreNotIdle(t *testing.T) {
	r := newSpliceRig(t, nil)
	r.copy()
	go func() { _, _ = io.Copy(io.Discard, r.client) }()
	for n := int64(1); n <= 4; n++ { // messages further apart than activityEvery
		if _, err := r.target.Write([]byte("message")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(activityEvery + 50*time.Millisecond)
		if got := r.activity.Load(); got != n {
			t.Fatalf("the timer saw %d of %d messages", got, n)
		}
	}
	go func() { _, _ = io.Copy(r.target, endless{}) }()
	before := r.activity.Load()
	time.Sleep(4 * activityEvery)
	if n := r.activity.Load() - before; n < 3 || n > 5 {
		t.Errorf("the timer saw a busy connection %d times in %s", n, 4*activityEvery)
	}
}

// Streams that wait hold no pipe, and streams that end leave none behind.
func TestPipesAreFew(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		pipes := 0
		for _, e := range entries {
			if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && len(name) > 4 && name[:5] == "pipe:" {
				pipes++
			}
		}
		return pipes
	}
	few := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(time.Second); open() > 2*sparePipes+10; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d ends of pipes are open", what, open())
			}
		}
	}
	const streams = 200
	rigs := make([]*spliceRig, streams)
	for i := range rigs {
		r := newSpliceRig(t, nil)
		rigs[i] = r
		r.copy()
		for range 3 {
			if _, err := r.target.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r.client, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
	}
	few("waiting streams")
	for _, r := range rigs {
		if err := r.target.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := r.ended(t); err != nil {
			t.Fatal(err)
		}
	}
	few("ended streams")
}
