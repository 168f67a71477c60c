package relay

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apernet/quic-go"
	"golang.org/x/sys/unix"

	"nodeagent/internal/occupancy"
)

const (
	// queued is how many datagrams wait at most for one other worker, and how many for one listener.
	// More are dropped, and QUIC sends them again.
	queued = 2048
	// queuedBytes bounds the bytes of these, which are 8 KiB each on average then.
	queuedBytes = queued * 8192
	// again is how long no datagrams are passed to a worker that could not be reached.
	again = time.Second
	// bindTries and bindPause are for the name of a worker that has just ended: the kernel gives up
	// its lane a moment before its socket.
	bindTries = 50
	bindPause = 20 * time.Millisecond
	// acceptPause is how long accept waits after an error.
	acceptPause = 100 * time.Millisecond
	// buffered is the size of the buffers of both sides of a unix socket, in bytes.
	buffered = 256 << 10
)

// Relay passes datagrams between this worker and others. mu guards ports and peers, and no other lock
// is taken while it is held. Each peer has a goroutine that writes, each connection of another worker
// one that reads.
type Relay struct {
	table  *occupancy.Table
	ids    *ids
	key    []byte
	name   string // of the unix socket, without the lane
	socket *net.UnixListener

	// sources is nil where other workers can't be told which sources this one serves.
	sources *Sources

	draining atomic.Bool
	// Passed and Dropped count datagrams: passed to another worker, and those for which there was no
	// room or no worker.
	Passed, Dropped atomic.Int64

	mu    sync.Mutex
	ports map[*Port]struct{}
	peers map[int]*peer // by the lane
}

// peer is another worker.
type peer struct {
	frames chan *[]byte
	bytes  atomic.Int64 // of frames
	ended  atomic.Bool
	since  time.Time // when send began to connect to it
}

// own is the relay of this process; nil for none.
var own atomic.Pointer[Relay]

// Install makes r the relay of the listeners that are made from now on.
func Install(r *Relay) { own.Store(r) }

// Share lets r pass datagrams by their sources too. It is called before Install.
func (r *Relay) Share(sources *Sources) { r.sources = sources }

// New makes the relay of a worker and begins to listen for other workers. key is secret, has 32 bytes,
// and is the same in all workers of a node. The caller closes the relay.
func New(table *occupancy.Table, key []byte) (*Relay, error) {
	numbers, err := newIDs(key, table.Lane())
	if err != nil {
		return nil, fmt.Errorf("make connection ids: %w", err)
	}
	r := &Relay{
		table: table, ids: numbers, key: key, name: "@node-agent-datagrams-" + hex.EncodeToString(derive(key, "socket")[:8]),
		ports: map[*Port]struct{}{}, peers: map[int]*peer{},
	}
	if r.socket, err = bind(r.address(table.Lane())); err != nil {
		return nil, fmt.Errorf("listen for datagrams of other workers: %w", err)
	}
	go r.accept(r.socket.AcceptUnix)
	return r, nil
}

// bind listens on an abstract name. It waits for a worker that has just ended, and had the name.
func bind(address *net.UnixAddr) (*net.UnixListener, error) {
	for try := 1; ; try++ {
		socket, err := net.ListenUnix("unix", address)
		if err == nil {
			return socket, nil
		}
		if try == bindTries || !errors.Is(err, unix.EADDRINUSE) {
			return nil, err
		}
		time.Sleep(bindPause)
	}
}

func (r *Relay) address(lane int) *net.UnixAddr {
	return &net.UnixAddr{Name: fmt.Sprintf("%s-%d", r.name, lane), Net: "unix"}
}

// Close ends the listening for other workers.
func (r *Relay) Close() error { return r.socket.Close() }

// Drain passes the datagrams of new connections to the worker that serves, from now on. It returns
// false where no other worker with a relay serves: these datagrams are dropped.
func (r *Relay) Drain() bool {
	r.table.Drain()
	r.draining.Store(true)
	_, is := r.table.Serving()
	return is
}

// Transport gives a transport connection ids that name this worker, and the key of tokens that all
// workers accept (RFC 9000 section 8.1.3), if this process has a relay. The transport's socket is made
// by Listen.
func Transport(t *quic.Transport) {
	if r := own.Load(); r != nil {
		r.transport(t)
	}
}

func (r *Relay) transport(t *quic.Transport) {
	t.ConnectionIDGenerator = r.ids
	t.TokenGeneratorKey = new(quic.TokenGeneratorKey)
	copy(t.TokenGeneratorKey[:], derive(r.key, "tokens"))
}

// ResetKey returns the key of stateless resets (RFC 9000 section 10.3), with which this worker ends
// the connections of one that has ended. It returns nil where this process has no relay.
func ResetKey() *quic.StatelessResetKey {
	r := own.Load()
	if r == nil {
		return nil
	}
	key := new(quic.StatelessResetKey)
	copy(key[:], r.key)
	return key
}

// accept takes the connections of other workers, which next returns, until the relay is closed.
func (r *Relay) accept(next func() (*net.UnixConn, error)) {
	for {
		conn, err := next()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is free (EMFILE), say
			time.Sleep(acceptPause)
			continue
		}
		if checkUser(conn) != nil {
			_ = conn.Close()
			continue
		}
		go r.receive(conn)
	}
}

// checkUser returns an error where the process at the other side runs as another user.
func checkUser(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var who *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) { who, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if asked != nil {
		return asked
	}
	if int(who.Uid) != os.Geteuid() {
		return fmt.Errorf("process %d of user %d is at the other side of the socket", who.Pid, who.Uid)
	}
	return nil
}

// receive hands the datagrams of another worker to the listeners, until conn ends.
func (r *Relay) receive(conn *net.UnixConn) {
	defer conn.Close()
	in, buffer := bufio.NewReaderSize(conn, buffered), make([]byte, mostFrame)
	for {
		d, err := readFrame(in, buffer)
		if err != nil {
			return
		}
		if port := r.portAt(d.at); port == nil || !port.put(d) {
			r.Dropped.Add(1)
		}
	}
}

// portAt returns the listener of an address, or else one of its port: the configurations of two
// workers may differ in the address.
func (r *Relay) portAt(at netip.AddrPort) *Port {
	r.mu.Lock()
	defer r.mu.Unlock()
	var near *Port
	for p := range r.ports {
		if p.at == at {
			return p
		}
		if p.at.Port() == at.Port() {
			near = p
		}
	}
	return near
}

var frames = sync.Pool{New: func() any { return new(make([]byte, 0, usualFrame)) }}

// pass passes a datagram to the worker of a lane. It never waits. It returns false where that worker
// can't be reached.
func (r *Relay) pass(lane int, d datagram) bool {
	p := r.peerOf(lane)
	if p == nil {
		return false
	}
	frame := frames.Get().(*[]byte)
	var fits bool
	if *frame, fits = appendFrame((*frame)[:0], d); !fits {
		r.Dropped.Add(1)
		return true
	}
	if size := int64(len(*frame)); p.bytes.Add(size) <= queuedBytes {
		select {
		case p.frames <- frame:
			r.Passed.Add(1)
			return true
		default:
		}
	}
	p.bytes.Add(-int64(len(*frame)))
	giveBack(frame)
	r.Dropped.Add(1)
	return true
}

// giveBack keeps the buffer of a frame for the next one, unless it is one of the rare long ones.
func giveBack(frame *[]byte) {
	if cap(*frame) <= 16<<10 {
		frames.Put(frame)
	}
}

// peerOf returns the worker of a lane; nil where it could not be reached a moment ago.
func (r *Relay) peerOf(lane int) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peers[lane]
	if p == nil || p.ended.Load() {
		if p != nil && time.Since(p.since) < again {
			return nil
		}
		p = &peer{frames: make(chan *[]byte, queued), since: time.Now()}
		r.peers[lane] = p
		go r.send(lane, p)
	}
	return p
}

// peerIdle is how long a connection to another worker stays without datagrams.
const peerIdle = time.Minute

// send writes the datagrams for a worker until its socket ends, or none has come for peerIdle.
func (r *Relay) send(lane int, p *peer) {
	defer p.ended.Store(true)
	conn, err := net.DialUnix("unix", nil, r.address(lane))
	if err != nil {
		return
	}
	defer conn.Close()
	if checkUser(conn) != nil {
		return
	}
	out := bufio.NewWriterSize(conn, buffered)
	idle := time.NewTimer(peerIdle)
	defer idle.Stop()
	for {
		select {
		case frame := <-p.frames:
			p.bytes.Add(-int64(len(*frame)))
			_, err = out.Write(*frame)
			giveBack(frame)
			if len(p.frames) == 0 && err == nil {
				err = out.Flush()
			}
			idle.Reset(peerIdle)
		case <-idle.C:
			return
		}
		if err != nil {
			return
		}
	}
}
