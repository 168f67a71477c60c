package e2e

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// crowd opens n connections from one address and keeps them open while the real clients are
// served. Half of them send nothing; half of them send a recording that opens a stream.
func (h *hostile) crowd(t *testing.T, n int) {
	// A stream takes two files in this process, for client and server, and two in the worker,
	// which inherits the limit.
	if limit := raiseFileLimit(t); n+n/2+1000 > limit {
		n = (limit - 1000) * 2 / 3
		t.Logf("THE CROWD IS SMALLER than asked for, %d: %d files may be open (raise ulimit -Hn)", n, limit)
	}
	most := h.watchMemory()
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	began := time.Now()
	silent, streaming := h.crowdEndpoints()
	streams := 0
	for i := range n {
		d := silent[i/2%len(silent)]
		if i%2 == 1 {
			d = streaming[i/2%len(streaming)]
		}
		conn, err := net.DialTimeout("tcp", d.address(), hostilePatience)
		if err != nil {
			t.Fatalf("%s: connection %d of one address: %v", d.name, i, err)
		}
		conns = append(conns, conn)
		if i%2 == 1 {
			streams++
			if _, err := conn.Write(d.flight); err != nil {
				t.Fatalf("%s: connection %d: %v", d.name, i, err)
			}
		}
	}
	must(t, Within(h.ctx, hostilePatience, func() error {
		s, err := h.ask()
		if err == nil && s.Engines.Xray.Streams < int64(streams) {
			err = fmt.Errorf("%d streams, want those %d and the real ones", s.Engines.Xray.Streams, streams)
		}
		return err
	}))
	t.Logf("%d connections, %d streams of them, after %s", n, streams, time.Since(began).Round(time.Millisecond))
	must(t, h.served(5))
	s := h.status(t).Engines.Xray
	t.Logf("while they are there: %d goroutines, %d streams; the real clients were served 5 times each within %s of the start", s.Goroutines, s.Streams, time.Since(began).Round(time.Millisecond))
	if peak, bound := most(), hostileMB+float64(n*crowdKB)/1000; peak > bound {
		t.Errorf("the worker held %.0f MB for %d connections; the bound is %.0f", peak, n, bound)
	} else {
		t.Logf("the worker held %.0f MB at the most", peak)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	h.settled(t)
}

// crowdEndpoints returns the endpoints that keep silent connections, and those that accept a
// recording.
func (h *hostile) crowdEndpoints() (silent, streaming []*endpoint) {
	for _, d := range h.endpoints {
		if !d.noTCP {
			silent = append(silent, d)
		}
		if d.repeats {
			streaming = append(streaming, d)
		}
	}
	return silent, streaming
}
