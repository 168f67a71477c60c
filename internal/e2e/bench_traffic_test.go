package e2e

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkThroughput reports, for each kind of inbound, the speed of a download through the
// worker, as a ratio to a stock Xray with its statistics on. The bound is 0.97.
func BenchmarkThroughput(b *testing.B) {
	overTLS, reality := secureStreams(b)
	for _, c := range []struct {
		name string
		kind protocolKind
	}{
		{"VLESS", kindVLESS("", streams{})},
		{"VLESS-TLS", kindVLESS("", overTLS)},
		{"VLESS-REALITY-vision", kindVLESS("xtls-rprx-vision", reality)},
		{"Trojan-TLS", kindTrojan(overTLS)},
		{"Shadowsocks-2022", kindShadowsocks()},
	} {
		b.Run(c.name, func(b *testing.B) {
			ours, stock := newBenchPair(b, c.kind).start(b)
			b.ReportMetric(pairs(b, benchTarget(b), ours, stock), "of-stock-speed")
		})
	}
}

const (
	openRounds = 8 // in turns: the speed of the machine changes slowly
	openEach   = 500
)

// BenchmarkOpen reports how many connections a second are opened, used for one byte and closed,
// as a ratio to a stock Xray; the bound is 0.95. On a busy machine the servers' processor time,
// which it reports too, has less noise. Connections that are opened one after the other make
// their client come and go with each of them.
func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct {
		name     string
		parallel int
	}{{"32-at-a-time", 32}, {"one-at-a-time", 1}} {
		b.Run(c.name, func(b *testing.B) { compareOpening(b, c.parallel) })
	}
}

func compareOpening(b *testing.B, parallel int) {
	b.Helper()
	r := newBenchPair(b, kindVLESS("", streams{}))
	ours, stock := r.start(b)
	target := benchTarget(b)
	worker := r.worker(b).PID
	openMany(b, ours, target, worker, parallel)
	openMany(b, stock, target, r.stock.PID(), parallel)
	var ratios, rates, work []float64
	for b.Loop() {
		var first, second opened
		for i := range openRounds {
			if i%2 == 0 {
				first.add(openMany(b, ours, target, worker, parallel))
				second.add(openMany(b, stock, target, r.stock.PID(), parallel))
			} else {
				second.add(openMany(b, stock, target, r.stock.PID(), parallel))
				first.add(openMany(b, ours, target, worker, parallel))
			}
		}
		ratios, work = append(ratios, second.seconds/first.seconds), append(work, first.cpu/second.cpu)
		rates = append(rates, openRounds*openEach/first.seconds)
	}
	b.ReportMetric(median(ratios), "of-stock-rate")
	b.ReportMetric(median(work), "of-stock-cpu")
	b.ReportMetric(median(rates), "opens/s")
}

// opened is how long opening connections took, and the server's processor time for it, in seconds.
type opened struct{ seconds, cpu float64 }

func (o *opened) add(more opened) { o.seconds, o.cpu = o.seconds+more.seconds, o.cpu+more.cpu }

// openMany opens many connections through a client of the server with the pid.
func openMany(b *testing.B, c *Client, target *Target, pid, parallel int) opened {
	b.Helper()
	work := make(chan struct{})
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for range work {
				if err := c.Exchange(target.Addr(), 0, 1); err != nil {
					b.Error(err)
				}
			}
		})
	}
	began, cpu := time.Now(), processorTime(b, pid)
	for range openEach {
		work <- struct{}{}
	}
	close(work)
	workers.Wait()
	return opened{time.Since(began).Seconds(), processorTime(b, pid) - cpu}
}

// processorTicks returns the processor time that a process has used, in clock ticks.
func processorTicks(b *testing.B, pid int) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	benchCheck(b, err)
	_, after, _ := strings.Cut(string(stat), ") ") // the program's name may have spaces
	fields := strings.Fields(after)
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	benchCheck(b, errors.Join(err1, err2))
	return user + system
}
