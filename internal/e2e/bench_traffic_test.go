package e2e

import (
	"sync"
	"testing"
	"time"
)

// BenchmarkThroughput reports, for each kind of inbound, how fast a download
// through the worker is beside a stock Xray with its statistics on. The bound is
// 0.97.
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
			ours, stock := newRivals(b, c.kind).start(b)
			b.ReportMetric(pairs(b, benchTarget(b), ours, stock), "of-stock-speed")
		})
	}
}

const (
	opens        = 3000 // connections in one measurement
	openParallel = 32
)

// BenchmarkOpen reports how many connections a second are opened, used for a
// byte and closed, beside a stock Xray. The bound is 0.95.
func BenchmarkOpen(b *testing.B) {
	ours, stock := newRivals(b, kindVLESS("", streams{})).start(b)
	target := benchTarget(b)
	openMany(b, ours, target)
	openMany(b, stock, target)
	var ratios, rates []float64
	for i := 0; b.Loop(); i++ {
		var first, second float64
		if i%2 == 0 { // the machine's speed drifts
			first = openMany(b, ours, target)
			second = openMany(b, stock, target)
		} else {
			second = openMany(b, stock, target)
			first = openMany(b, ours, target)
		}
		ratios, rates = append(ratios, first/second), append(rates, first)
	}
	b.ReportMetric(median(ratios), "of-stock-rate")
	b.ReportMetric(median(rates), "opens/s")
}

// openMany returns the connections a second.
func openMany(b *testing.B, c *Client, target *Target) float64 {
	b.Helper()
	work := make(chan struct{})
	var workers sync.WaitGroup
	for range openParallel {
		workers.Go(func() {
			for range work {
				if err := c.Exchange(target.Addr(), 0, 1); err != nil {
					b.Error(err)
				}
			}
		})
	}
	began := time.Now()
	for range opens {
		work <- struct{}{}
	}
	close(work)
	workers.Wait()
	return opens / time.Since(began).Seconds()
}
