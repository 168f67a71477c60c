package xray_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/xtls/xray-core/core"

	"nodeagent/internal/namespace"
)

// gone reports whether a process has ended, and its sockets with it.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// A worker that dies refuses no connection: clients that connect meanwhile wait, and the next worker
// serves them. The kernel resets a connection whose handshake ends in the microsecond in which it closes the
// socket that listens (inet_csk_reqsk_queue_add in net/ipv4/inet_connection_sock.c finds no listener, after
// tcp_v4_rcv has found one): one for each socket that is closed.
func TestACrashRefusesNobody(t *testing.T) {
	if !namespace.Inside(t, "echo 1 >/proc/sys/net/ipv4/tcp_migrate_req") {
		return
	}
	r := newRig(t)
	r.apply(r.state("", bobID))
	var taken, resets atomic.Int64
	stop := make(chan struct{})
	var connecting sync.WaitGroup
	connecting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			conn, err := net.DialTimeout("tcp", r.address(), patience)
			switch {
			case errors.Is(err, syscall.ECONNRESET):
				resets.Add(1)
				continue
			case err != nil:
				t.Errorf("after %d connections: %v", taken.Load(), err)
				return
			}
			_ = conn.Close()
			taken.Add(1)
		}
	})
	for range 3 {
		pid := r.engine.Status().PID
		r.dial(bobID)
		clients := make([]*core.Instance, 5)
		for i := range clients {
			var err error
			if clients[i], err = r.stockClient(vlessOutbound(bobID, r.port)); err != nil {
				t.Fatal(err)
			}
		}
		sendSignal(t, pid, syscall.SIGKILL)
		for !gone(pid) {
		}
		var waiting sync.WaitGroup
		for _, client := range clients {
			waiting.Go(func() {
				conn, err := r.dialThrough(client, r.toEcho())
				if err == nil {
					err = use(conn)
				}
				if err != nil {
					t.Errorf("a client that came after the worker had died: %v", err)
				}
			})
		}
		waiting.Wait()
		r.replaced(pid, patience)
		if t.Failed() {
			break
		}
	}
	// Another configuration, in which the worker listens anew on the same port, and then a removal.
	before := taken.Load()
	r.apply(r.state(`,"policy":{"levels":{"0":{"handshake":3}}}`, bobID, aliceID))
	r.dial(aliceID)
	r.eventually("connections go on", func() bool { return t.Failed() || taken.Load() > before+100 })
	close(stop)
	connecting.Wait()
	s := r.state("", bobID)
	clear(s.Inbounds)
	r.apply(s)
	r.eventually("nobody listens", func() bool {
		conn, err := net.Dial("tcp", r.address())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	const closed = 8 // three killed workers, the three spares that the next ones replace, and a socket and a spare of the change
	if n := resets.Load(); n > closed {
		t.Errorf("%d connections were reset", n)
	}
	t.Logf("%d connections were taken, %d reset", taken.Load(), resets.Load())
}
