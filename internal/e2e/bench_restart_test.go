package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// exec starts the daemon and does not wait.
func (r *benchPair) exec(b *testing.B) {
	b.Helper()
	var err error
	r.agent.process, err = start(r.agent.dir+".log", r.agent.path, "run", "--config", r.agent.file("config.toml"),
		"--state-dir", r.agent.file("state"), "--runtime-dir", r.agent.file("run"))
	benchCheck(b, err)
}

// soon asks each millisecond until ask returns nil. Eventually would add its pause to what is measured.
func soon(b *testing.B, ask func() error) {
	b.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(time.Millisecond) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

// newManyPair starts a daemon with 100,000 clients, and returns their UUIDs. The last one reaches target.
func newManyPair(b *testing.B) (r *benchPair, uuids []string, target *net.TCPAddr) {
	b.Helper()
	uuids, target = benchUUIDs(manyClients), echoByte(b)
	r = newBenchPair(b, kindVLESS("", streams{}))
	r.startAgent(b)
	r.serve(b, uuids)
	r.firstOpen(b, uuids[manyClients-1], target)
	benchCheck(b, r.core.applied(b.Context()))
	return r, uuids, target
}

// startCold starts the daemon, which starts a worker, and returns how long it takes until a client is
// served, and the processor time of both.
func (r *benchPair) startCold(b *testing.B, open func() error) (took, daemon, worker float64) {
	b.Helper()
	began := time.Now()
	r.exec(b)
	soon(b, open)
	took = time.Since(began).Seconds()
	return took, processorTime(b, r.agent.PID()), processorTime(b, r.worker(b).PID)
}

// BenchmarkRestart reports how long a node with 100,000 clients takes from the start of the daemon until
// a client is served, as a ratio to a stock Xray that starts with them in its file (the bound is 1.0),
// the processor time of both, and the daemon's memory at rest (the bound is 80 MB).
func BenchmarkRestart(b *testing.B) {
	r, uuids, target := newManyPair(b)
	opens := func(port int) func() error {
		return func() error {
			conn, err := openVLESS(port, uuids[manyClients-1], target)
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
	}
	var ratios, ours, stocks, daemon, worker, stockUsed, resident []float64
	for b.Loop() {
		benchCheck(b, r.agent.Stop())
		took, ofDaemon, ofWorker := r.startCold(b, opens(r.ourPort))
		ours, daemon, worker = append(ours, took), append(daemon, ofDaemon), append(worker, ofWorker)
		began := time.Now()
		r.startStockUDP(b, uuids)
		soon(b, opens(r.itsPort))
		stocks = append(stocks, time.Since(began).Seconds())
		stockUsed = append(stockUsed, processorTime(b, r.stock.PID()))
		ratios = append(ratios, took/stocks[len(stocks)-1])
		r.stock.Kill()
		time.Sleep(atRest)
		now, err := memory(r.agent.PID(), "VmRSS")
		benchCheck(b, err)
		resident = append(resident, now)
	}
	b.ReportMetric(median(ratios), "of-stock-start")
	b.ReportMetric(median(ours), "s-to-serve")
	b.ReportMetric(median(stocks), "s-stock")
	b.ReportMetric(median(daemon), "CPU-s-daemon")
	b.ReportMetric(median(worker), "CPU-s-worker")
	b.ReportMetric(median(stockUsed), "CPU-s-stock")
	b.ReportMetric(median(resident), "MB-daemon")
}

// served waits until the daemon's log says so once more than before.
func (r *benchPair) served(b *testing.B, before int) {
	b.Helper()
	soon(b, func() error {
		if r.timesServed(b) > before {
			return nil
		}
		return fmt.Errorf("the daemon has not said that it serves:\n%s", r.agent.Log())
	})
}

func (r *benchPair) timesServed(b *testing.B) int {
	b.Helper()
	text, err := os.ReadFile(r.agent.dir + ".log")
	benchCheck(b, err)
	return strings.Count(string(text), "the last good configuration is served")
}

// BenchmarkAdoptionOfMany reports how long a daemon that starts takes until it has adopted a worker with
// 100,000 clients and knows that it runs what is wanted (the bound is 300 ms), and its processor time.
func BenchmarkAdoptionOfMany(b *testing.B) {
	r, _, _ := newManyPair(b)
	var took, used []float64
	for b.Loop() {
		benchCheck(b, r.agent.Leave())
		times, began := r.timesServed(b), time.Now()
		r.exec(b)
		r.served(b, times)
		took = append(took, float64(time.Since(began).Milliseconds()))
		used = append(used, processorTime(b, r.agent.PID())*1000)
	}
	b.ReportMetric(median(took), "ms-to-adopt")
	b.ReportMetric(median(used), "CPU-ms")
}
