package e2e

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	visionBytes = 64 << 20 // of one measured download
	visionTurns = 2        // downloads of each server in a pair
	// probeBytes is how much a connection moves before it is known to be spliced or padded.
	probeBytes = 8 << 20
	// visionTries is how many connections in a row may stay padded.
	visionTries = 40
)

// BenchmarkVision reports the processor time per byte that the worker spends on downloads over
// REALITY with Vision, with TLS 1.3 inside, as a ratio to a stock Xray. The bound is 1.05. Only
// connections that a server splices are compared, by what the kernel says that the server has
// read. It fails if a server splices none of 40.
//
// It also reports which part of each server's connections never leaves Vision's padding, and
// what these cost.
func BenchmarkVision(b *testing.B) {
	_, reality := secureStreams(b)
	r := newBenchPair(b, kindVLESS("xtls-rprx-vision", reality))
	ours, stock := r.start(b)
	target := newTLSTarget(b, newCert(b))
	worker := &visionSide{name: "worker", client: ours, pid: r.worker(b).PID}
	reference := &visionSide{name: "stock", client: stock, pid: r.stock.PID()}
	var ratios []float64
	for b.Loop() {
		ratios = append(ratios, visionPair(b, target, worker, reference))
	}
	for _, s := range []*visionSide{worker, reference} {
		b.ReportMetric(median(s.spliced), s.name+"-s/GB")
		b.ReportMetric(100*float64(len(s.padded))/float64(len(s.padded)+len(s.spliced)), s.name+"-%padded")
		if len(s.padded) > 0 {
			b.ReportMetric(median(s.padded), s.name+"-padded-s/GB")
		}
	}
	b.Logf("ratios %.2f", ratios)
	b.ReportMetric(median(ratios), "of-stock-cpu")
}

// visionPair downloads in turns over one spliced connection of each server. It returns the
// ratio of the servers' processor times.
func visionPair(b *testing.B, target *tlsTarget, first, second *visionSide) float64 {
	b.Helper()
	var conns [2]net.Conn
	var used [2]float64
	sides := [2]*visionSide{first, second}
	for i, side := range sides {
		conns[i] = side.splicedConn(b, target)
		defer conns[i].Close()
	}
	for turn := range visionTurns {
		for i := range sides {
			i = (i + turn) % 2
			cpu := processorTime(b, sides[i].pid)
			benchCheck(b, Exchange(conns[i], 0, visionBytes))
			used[i] += processorTime(b, sides[i].pid) - cpu
		}
	}
	for i, side := range sides {
		side.spliced = append(side.spliced, used[i]/(visionTurns*visionBytes)*1e9)
	}
	return used[0] / used[1]
}

// visionSide is one of the servers, and what its connections cost, in CPU seconds per GB.
type visionSide struct {
	name            string
	client          *Client
	pid             int
	spliced, padded []float64
}

// splicedConn opens connections until one is spliced, and returns it.
func (s *visionSide) splicedConn(b *testing.B, target *tlsTarget) net.Conn {
	b.Helper()
	for range visionTries {
		conn, err := target.dialTLS(s.client)
		benchCheck(b, err)
		benchCheck(b, Exchange(conn, 0, 1<<20)) // Vision is out of its padding now, or never
		cpu, read := processorTime(b, s.pid), bytesRead(b, s.pid)
		benchCheck(b, Exchange(conn, 0, probeBytes))
		if float64(bytesRead(b, s.pid)-read) < splicedAtMost*probeBytes {
			return conn
		}
		s.padded = append(s.padded, (processorTime(b, s.pid)-cpu)/probeBytes*1e9)
		benchCheck(b, conn.Close())
	}
	b.Fatalf("the %s splices none of %d connections: there is nothing to compare", s.name, visionTries)
	return nil
}

// processorTime returns the processor time that a process has used, in seconds.
func processorTime(b *testing.B, pid int) float64 {
	b.Helper()
	const scheduled = 2 // CPUCLOCK_SCHED in include/linux/posix-timers_types.h
	var used unix.Timespec
	benchCheck(b, unix.ClockGettime(int32(^pid<<3|scheduled), &used))
	return float64(used.Nano()) / 1e9
}
