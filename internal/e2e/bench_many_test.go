package e2e

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"
)

const (
	manyIdle    = 10_000
	manyClients = 100_000
	// atRest is how long Go's runtime, and package heap of the worker, get to return memory to the
	// system.
	atRest = 10 * time.Second
	// goroutinesNear is how many goroutines more than before count as the same number.
	goroutinesNear = 50
)

// raiseFiles raises the number of open files, for this process and its children, to the hard
// limit, and returns that number.
func raiseFiles(b *testing.B) int {
	b.Helper()
	var limit syscall.Rlimit
	benchCheck(b, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	wanted := syscall.Rlimit{Cur: max(limit.Max, 1<<16), Max: max(limit.Max, 1<<16)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &wanted) == nil {
		return int(min(wanted.Cur, 1<<20))
	}
	limit.Cur = limit.Max // without root the hard limit cannot be raised
	benchCheck(b, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	return int(min(limit.Cur, 1<<20))
}

// BenchmarkIdle reports how much the worker's memory grows by 10,000 idle connections, as a
// ratio to a stock Xray (the bound is 1.05). It checks that the worker's goroutines end with the
// connections.
func BenchmarkIdle(b *testing.B) {
	carriers := idleCarriers(b, raiseFiles(b))
	target := echoByte(b)
	var ratios, ours []float64
	for b.Loop() {
		r := newBenchPair(b, kindVLESS("", streams{}))
		uuids := benchUUIDs(1)
		r.startAgent(b)
		r.serve(b, uuids)
		benchCheck(b, r.core.applied(b.Context()))
		r.startStock(b, uuids)
		worker := r.worker(b)
		first := idleGrowth(b, worker.PID, r.ourPort, uuids[0], target, carriers)
		second := idleGrowth(b, r.stock.PID(), r.itsPort, uuids[0], target, carriers)
		ratios, ours = append(ratios, first/second), append(ours, first)
		benchCheck(b, Eventually(b.Context(), func() error {
			if now := r.worker(b).Goroutines; now > worker.Goroutines+goroutinesNear {
				return fmt.Errorf("the worker has %d goroutines, %d before the connections", now, worker.Goroutines)
			}
			return nil
		}))
		benchCheck(b, r.agent.Stop())
		r.stock.Kill()
	}
	b.ReportMetric(median(ratios), "of-stock-memory")
	b.ReportMetric(median(ours)*1000/manyIdle, "KB/connection")
}

const (
	// A mux carrier has as many connections as Xray's own clients put on one.
	perCarrier = 8
	// spareFiles is for the other files that a process has open.
	spareFiles = 200
)

// idleCarriers returns how many mux carriers to use, so that the open files of a process
// suffice: each connection needs one file to its target, and one for itself or its carrier.
func idleCarriers(b *testing.B, files int) int {
	b.Helper()
	room := files - manyIdle - spareFiles
	carriers := max(0, (manyIdle-room+perCarrier-2)/(perCarrier-1))
	if carriers*perCarrier > manyIdle {
		b.Fatalf("this process may have %d files open: too few for %d connections", files, manyIdle)
	}
	if carriers > 0 {
		b.Logf("a process may have %d files open: %d connections of %d come over %d mux carriers", files, carriers*perCarrier, manyIdle, carriers)
	}
	return carriers
}

// idleGrowth holds all connections open through a server, some of them over mux carriers, and
// returns by how many megabytes the server's memory grew.
func idleGrowth(b *testing.B, pid, port int, uuid string, target *net.TCPAddr, carriers int) float64 {
	b.Helper()
	first, err := openVLESS(port, uuid, target) // the memory that the first connection costs is not measured
	benchCheck(b, err)
	defer first.Close()
	before, err := memory(pid, "VmRSS")
	benchCheck(b, err)
	for range carriers {
		carrier, err := openCarrier(port, uuid, target, perCarrier)
		benchCheck(b, err)
		defer carrier.Close()
	}
	for range manyIdle - carriers*perCarrier {
		conn, err := openVLESS(port, uuid, target)
		benchCheck(b, err)
		defer conn.Close()
	}
	time.Sleep(atRest)
	after, err := memory(pid, "VmRSS")
	benchCheck(b, err)
	return after - before
}

// BenchmarkClients reports how long 100,000 clients take from the fetch until they are served
// (the bound is 3 s); the worker's memory then, as a ratio to a stock Xray that starts with
// them in its file (the bound is 1.15); and how long no client is served after the worker was
// killed.
func BenchmarkClients(b *testing.B) {
	uuids := benchUUIDs(manyClients)
	target := echoByte(b)
	var ready, waits, away, ratios, daemon, worker []float64
	for b.Loop() {
		r := newBenchPair(b, kindVLESS("", streams{}))
		r.startAgent(b)
		r.serve(b, uuids)
		ready = append(ready, r.firstOpen(b, uuids[manyClients-1], target).Seconds())
		benchCheck(b, r.core.applied(b.Context()))
		waits = append(waits, ready[len(ready)-1]/r.startStock(b, uuids).Seconds())
		time.Sleep(atRest)
		first, err := memory(r.worker(b).PID, "VmRSS")
		benchCheck(b, err)
		second, err := memory(r.stock.PID(), "VmRSS")
		benchCheck(b, err)
		own, err := memory(r.agent.PID(), "VmRSS")
		benchCheck(b, err)
		ratios, worker, daemon = append(ratios, first/second), append(worker, first), append(daemon, own)
		pid, killed := r.worker(b).PID, time.Now()
		if pid <= 0 { // a pid of 0 or below would name a process group
			b.Fatal("no worker runs")
		}
		benchCheck(b, syscall.Kill(pid, syscall.SIGKILL))
		r.firstOpen(b, uuids[manyClients-1], target)
		away = append(away, time.Since(killed).Seconds())
		benchCheck(b, r.agent.Stop())
		r.stock.Kill()
	}
	b.ReportMetric(median(away), "s-after-kill")
	b.ReportMetric(median(ready), "s-ready")
	b.ReportMetric(median(waits), "of-stock-start")
	b.ReportMetric(median(ratios), "of-stock-memory")
	b.ReportMetric(median(worker), "MB-worker")
	b.ReportMetric(median(daemon), "MB-daemon")
}

// BenchmarkUserAdd reports how long one new client among 100,000 takes from the daemon's fetch
// to the client's first connection. Most of that time is reading the whole document. The bound
// of 50 ms is for the rest; the benchmark of package worker measures that.
func BenchmarkUserAdd(b *testing.B) {
	uuids := benchUUIDs(manyClients + 1000)
	target := echoByte(b)
	r := newBenchPair(b, kindVLESS("", streams{}))
	r.startAgent(b)
	r.serve(b, uuids[:manyClients])
	benchCheck(b, r.core.applied(b.Context()))
	var took []float64
	for n := manyClients + 1; b.Loop(); n++ {
		r.serve(b, uuids[:n])
		took = append(took, float64(r.firstOpen(b, uuids[n-1], target).Microseconds())/1000)
		benchCheck(b, r.core.applied(b.Context()))
	}
	b.ReportMetric(median(took), "ms-to-connect")
}

// firstOpen tries until the client can connect, and returns the time since the daemon asked
// for the revision.
func (r *benchPair) firstOpen(b *testing.B, uuid string, target *net.TCPAddr) time.Duration {
	b.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(time.Millisecond) {
		conn, err := openVLESS(r.ourPort, uuid, target)
		if err == nil {
			_ = conn.Close()
			r.core.mu.Lock()
			defer r.core.mu.Unlock()
			return time.Since(r.core.fetched)
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}
