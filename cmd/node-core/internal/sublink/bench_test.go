package sublink

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
)

// BenchmarkFetch measures fetches of 500 links at 100,000 subscriptions, each of another subscription,
// on all processors, and beside them the same fetches by a handler whose cache is always empty. The
// aims are 5 ms of CPU a fetch and 1,000 fetches a second on two processors. SQLite's file and the
// HTTP handler are in it; TLS and the socket are not.
func BenchmarkFetch(b *testing.B) {
	store, err := corestore.Open(b.Context(), b.TempDir())
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(err)
	defer store.Close()
	const nodes, subscriptions = 50, 100_000
	kinds := []string{"vless", "vless", "vless", "trojan", "vmess", "shadowsocks", "hysteria", "vless", "trojan", "vless"}
	for n := range nodes {
		name := fmt.Sprint("node-", n)
		node, code, err := store.AddNode(b.Context(), name, "", time.Hour)
		must(err)
		_, _, err = store.Register(b.Context(), wire.RegisterRequest{Code: code, Host: name + ".example", IP: "192.0.2.1"}, "")
		must(err)
		for i, kind := range kinds {
			_, err := store.AddProtocol(b.Context(), corestore.Protocol{NodeID: node.ID, Protocol: kind, Port: 1000 + i, Listen: "0.0.0.0", Config: json.RawMessage(everyKind[kind])})
			must(err)
		}
	}
	for at := range subscriptions / corestore.MaxBulk {
		add := make([]corestore.NewUser, corestore.MaxBulk)
		for i := range add {
			add[i] = corestore.NewUser{User: corestore.User{Name: fmt.Sprint("user-", at, "-", i)}, Subscriptions: make([]corestore.Subscription, 1)}
		}
		_, err := store.BulkUsers(b.Context(), add, nil)
		must(err)
	}
	subs, err := store.Subscriptions(b.Context())
	must(err)
	tokens := make([]string, len(subs))
	for i, sub := range subs {
		tokens[i] = store.LinkToken(sub)
	}
	kept := New(store, Options{URL: "https://core.example", Title: "VPN"}, slog.New(slog.DiscardHandler))
	for _, form := range []string{"links", "mihomo", "sing-box", "xray"} {
		b.Run(form, func(b *testing.B) {
			cost := fetchCost(b, kept, tokens, form, 2000)
			without := fetchCost(b, nil, tokens, form, 10, store)
			b.ReportMetric(cost.cpu.Seconds()*1000, "cpu-ms/fetch")
			b.ReportMetric(1/cost.took.Seconds(), "fetches/s")
			b.ReportMetric(float64(cost.bytes), "bytes/fetch")
			b.ReportMetric(float64(cost.cpu)/float64(without.cpu), "of-uncached-cpu")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cost is that of one fetch.
type cost struct {
	cpu, took time.Duration
	bytes     int64
}

// fetchCost fetches n links, each of another subscription, from all processors at once. Without a
// handler, each fetch has a new one, whose cache is empty.
func fetchCost(b *testing.B, handler *Handler, tokens []string, form string, n int, store ...*corestore.Store) cost {
	b.Helper()
	fetch := func(i int) int64 {
		h := handler
		if h == nil {
			h = New(store[0], Options{URL: "https://core.example", Title: "VPN"}, slog.New(slog.DiscardHandler))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, corestore.LinkPrefix+tokens[i*7919%len(tokens)]+"/"+form, nil))
		if w.Code != http.StatusOK {
			b.Errorf("fetch %d gets %d", i, w.Code)
		}
		return int64(w.Body.Len())
	}
	if handler != nil {
		fetch(0)
	}
	var next, total atomic.Int64
	used, begun := cpuTime(b), time.Now()
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				total.Add(fetch(int(i)))
			}
		})
	}
	workers.Wait()
	return cost{(cpuTime(b) - used) / time.Duration(n), time.Since(begun) / time.Duration(n), total.Load() / int64(n)}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
