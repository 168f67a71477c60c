package rendered

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
)

// BenchmarkDocument measures, with 100,000 clients on five inbounds, the first document after a start
// with its digest, the document of a node more, and what a client more costs from the rows to the
// delta. The edit itself is beside it. Clients look alike on five inbounds of VLESS, and have five
// looks on inbounds of five protocols. The processor time is that of the first document.
func BenchmarkDocument(b *testing.B) {
	alike := []string{"vless", "vless", "vless", "vless", "vless"}
	for name, protocols := range map[string][]string{"one look": alike, "five looks": {"vless", "vmess", "trojan", "shadowsocks", "hysteria"}} {
		b.Run(name, func(b *testing.B) { benchmarkDocument(b, protocols) })
	}
}

func processorTime(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func benchmarkDocument(b *testing.B, protocols []string) {
	store, err := corestore.Open(b.Context(), b.TempDir())
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(err)
	defer store.Close()
	for i := range 10 {
		_, err := store.BulkUsers(b.Context(), []corestore.NewUser{{User: corestore.User{Name: fmt.Sprint("u", i)}, Subscriptions: make([]corestore.Subscription, 10_000)}}, nil)
		must(err)
	}
	var nodes [2]corestore.Node
	for i := range nodes {
		nodes[i], _, err = store.AddNode(b.Context(), fmt.Sprint("n", i), "", time.Hour)
		must(err)
		for at, protocol := range protocols {
			settings := `{"decryption":"none"}`
			if protocol == "shadowsocks" {
				settings = `{"method":"2022-blake3-aes-128-gcm","password":"MDAwMDAwMDAwMDAwMDAwMA=="}`
			}
			_, err := store.AddProtocol(b.Context(), corestore.Protocol{NodeID: nodes[i].ID, Protocol: protocol, Port: 1000 + at, Config: fmt.Appendf(nil, `{"protocol":%q,"port":%d,"settings":%s}`, protocol, 1000+at, settings)})
			must(err)
		}
	}
	user, err := store.AddUser(b.Context(), "user")
	must(err)
	var first, second, edit, change, processor time.Duration
	for b.Loop() {
		r := New(store)
		var d [2]*Document
		used := processorTime(b)
		for i, took := range []*time.Duration{&first, &second} {
			start := time.Now()
			d[i], err = r.Document(b.Context(), nodes[i].ID)
			must(err)
			_, err = d[i].Packed()
			must(err)
			must(r.Asked(nodes[i].ID, d[i]))
			*took += time.Since(start)
			if i == 0 {
				processor += processorTime(b) - used
			}
		}
		start := time.Now()
		_, _, err = store.AddSubscription(b.Context(), user.ID)
		must(err)
		edit += time.Since(start)
		start = time.Now()
		_, delta, err := r.Delta(b.Context(), nodes[0].ID, d[0].ETag)
		must(err)
		if delta == nil {
			b.Fatal("there is no delta")
		}
		change += time.Since(start)
	}
	for name, took := range map[string]time.Duration{"first-ms": first, "first-cpu-ms": processor, "second-ms": second, "edit-ms": edit, "delta-ms": change} {
		b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), name)
	}
}
