package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"nodeagent/internal/counters"
)

// splicedAtMost is the part of a connection's bytes that a server reads by itself if it
// splices. One that copies reads all of them.
const splicedAtMost = 0.1

// bytesRead returns how many bytes a process has read with read(2) and readv(2). Spliced bytes
// are not among them.
func bytesRead(tb testing.TB, pid int) int64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		tb.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		tb.Fatalf("read rchar of process %d: %v", pid, err)
	}
	return n
}

// visionWorld is a node with an inbound over REALITY with Vision, and a TLS target.
type visionWorld struct {
	*world
	inbound Protocol
	target  *tlsTarget
}

func newVisionWorld(t *testing.T) *visionWorld {
	t.Helper()
	w := newWorld(t)
	site, cert := w.httpsSite()
	vision := w.protocol("--security", "reality", "--sni", "site.test", "--dest", site, "--flow", "xtls-rprx-vision")
	return &visionWorld{w, vision, newTLSTarget(t, cert)}
}

// connect opens a connection through a subscriber's link, and TLS 1.3 over it.
func (w *visionWorld) connect(sub Subscription) *tls.Conn {
	w.t.Helper()
	conn, err := w.target.dialTLS(w.linkClient(sub.Links[0]))
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// counted returns the sum of all slots in the counters file. Each byte is in two slots: the
// client's and the outbound's.
func (w *visionWorld) counted() Traffic {
	w.t.Helper()
	file, err := counters.Open(w.agent.file("run/counters"))
	must(w.t, err)
	defer file.Close()
	var sum Traffic
	for number := uint32(0); ; number++ {
		slot, err := file.Slot(number)
		if err != nil { // after the last slot
			return sum
		}
		sum = Traffic{sum.Up + int64(slot.Up.Load()), sum.Down + int64(slot.Down.Load())}
	}
}

// Each connection that carries TLS 1.3 is spliced, by the kernel's word, and none stays in
// Vision's padding. At each moment at which nothing moves, every byte is counted.
func TestVisionSplices(t *testing.T) {
	const size = 8 << 20
	w := newVisionWorld(t)
	alice := w.subscriber("alice")
	w.start()
	status, err := w.agent.Status(w.ctx)
	must(t, err)
	for i := range 8 {
		conn := w.connect(alice)
		must(t, Exchange(conn, 1000, 1<<20)) // Vision is out of its padding now, or never
		before := bytesRead(t, status.Engines.Xray.PID)
		for range 3 {
			must(t, Exchange(conn, 1000, size))
			wire := w.target.Wire()
			if counted, want := w.counted(), (Traffic{2 * wire.Up, 2 * wire.Down}); counted != want {
				t.Errorf("connection %d: counted %+v, want %+v", i, counted, want)
			}
		}
		if n := bytesRead(t, status.Engines.Xray.PID) - before; float64(n) > splicedAtMost*3*size {
			t.Errorf("connection %d: the worker has read %d bytes of %d: it does not splice", i, n, 3*size)
		}
		must(t, conn.NetConn().Close()) // without an alert, which might not reach the target
	}
	w.stopAgent()
	w.wantUsage(map[Account]Traffic{{alice.UserID, w.inbound.ID}: w.target.Wire()})
}

// VLESS without TLS is spliced to the client, by the kernel's word, and every byte is counted.
func TestPlainVLESSIsSpliced(t *testing.T) {
	const size = 8 << 20
	w := newWorld(t)
	inbound, target := w.protocol(), w.target()
	alice := w.subscriber("alice")
	w.start()
	status, err := w.agent.Status(w.ctx)
	must(t, err)
	conn := w.dial(w.linkClient(alice.Links[0]), target)
	must(t, Exchange(conn, 1000, 1000)) // the first bytes are copied
	before := bytesRead(t, status.Engines.Xray.PID)
	for range 3 {
		must(t, Exchange(conn, 1000, size))
	}
	if n := bytesRead(t, status.Engines.Xray.PID) - before; float64(n) > splicedAtMost*3*size {
		t.Errorf("the worker has read %d bytes of %d: it does not splice", n, 3*size)
	}
	must(t, conn.Close())
	w.stopAgent()
	w.wantUsage(map[Account]Traffic{{alice.UserID, inbound.ID}: target.Traffic()})
}

// A client that is removed loses its spliced connections within a second: one that flows, and
// one that does not read. Another client's goes on.
func TestSplicedClientsAreCut(t *testing.T) {
	w := newVisionWorld(t)
	alice, bob := w.subscriber("alice"), w.subscriber("bob")
	w.start()
	flows, stalls, stays := w.connect(alice), w.connect(alice), w.connect(bob)
	const endless = 1 << 40
	var received, stayed atomic.Int64
	ended := make(chan error, 1)
	go func() { ended <- Exchange(countedConn{flows, &received}, 0, endless) }()
	go func() { _ = Exchange(countedConn{stays, &stayed}, 0, endless) }()
	must(t, Exchange(stalls, 0, 1<<20))
	var question [16]byte
	question[8] = 1
	_, err := stalls.Write(question[:])
	must(t, err)
	reached := func(n *atomic.Int64, want int64) func() error {
		return func() error {
			if have := n.Load(); have < want {
				return fmt.Errorf("%d bytes have come", have)
			}
			return nil
		}
	}
	must(t, Eventually(w.ctx, reached(&received, 50<<20)))
	must(t, Eventually(w.ctx, reached(&stayed, 50<<20)))
	var disabled any
	must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", alice.UUID))
	w.synced()
	for cut := time.Now(); w.target.open.Load() > 1; time.Sleep(time.Millisecond) {
		if time.Since(cut) > time.Second {
			t.Fatalf("the target has %d connections, one of them of the client that was not removed", w.target.open.Load())
		}
	}
	if err := <-ended; err == nil {
		t.Error("the removed client got all bytes")
	}
	must(t, stalls.SetReadDeadline(time.Now().Add(Patience)))
	if _, err := io.Copy(io.Discard, stalls); errors.Is(err, os.ErrDeadlineExceeded) { // what the sockets held comes still
		t.Error("the connection of the removed client that did not read lives on")
	}
	must(t, Eventually(w.ctx, reached(&stayed, stayed.Load()+(50<<20))))
}

// countedConn counts the bytes that are read.
type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	return countingReader{c.Conn, c.n}.Read(p)
}
