package xray_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/counters"
	"nodeagent/internal/supervise"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

const benchClients = 100_000

// BenchmarkUserAdd reports how long one client more among 100,000 takes from
// Apply to his first connection, with what comes before Apply (fetching,
// parsing, slots) left out; the whole is internal/e2e's benchmark of that name.
func BenchmarkUserAdd(b *testing.B) {
	engine, file := benchEngine(b)
	port := benchPort(b)
	all := benchState(b, port, benchClients+1000)
	if err := file.Grow(benchClients + 2000); err != nil {
		b.Fatal(err)
	}
	sortedClients := all.Inbounds["in-1"].Clients
	with := func(n int) state.State {
		s, in := all, all.Inbounds["in-1"]
		// Those who come later are taken out of the whole, in order of Email.
		in.Clients = slices.DeleteFunc(slices.Clone(sortedClients), func(c *state.Client) bool { return int(c.Slot) > n })
		s.Inbounds = map[string]state.Inbound{"in-1": in}
		return s
	}
	began := time.Now()
	if err := engine.Apply(b.Context(), with(benchClients)); err != nil {
		b.Fatal(err)
	}
	first := time.Since(began).Seconds()
	var took []float64
	for n := benchClients + 1; b.Loop(); n++ {
		next := with(n)
		began := time.Now()
		if err := engine.Apply(b.Context(), next); err != nil {
			b.Fatal(err)
		}
		if err := knock(port, benchID(n)); err != nil {
			b.Fatal(err)
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	b.ReportMetric(first, "s-first-apply")
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "ms-to-connect")
}

// BenchmarkShadowsocksClients reports how long 10,000 clients of Shadowsocks 2022 take
// from nothing, another setting of their inbound, and one client more.
func BenchmarkShadowsocksClients(b *testing.B) {
	const clients = 10_000
	desired := func(port, n int, network string) state.State {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(`{"password":%q,"email":"c-%d"}`, ssKey(fmt.Sprint("client ", i)), i)
		}
		s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"shadowsocks",
			"settings":{"method":%q,"password":%q,"network":%q,"clients":[%s]}}]}`, port, ssMethod, ssKey("server"), network, strings.Join(all, ","))), func(string) bool { return true })
		if err != nil {
			b.Fatal(err)
		}
		for i := range s.Inbounds["in-1"].Clients {
			s.Inbounds["in-1"].Clients[i].Slot = uint32(i + 1)
		}
		return s
	}
	for b.Loop() {
		engine, file := benchEngine(b)
		port := benchPort(b) // another one: the engines before serve on
		if err := file.Grow(clients + 10); err != nil {
			b.Fatal(err)
		}
		for _, step := range []struct {
			metric string
			to     state.State
		}{{"s-first-apply", desired(port, clients, "tcp")}, {"s-other-setting", desired(port, clients, "tcp,udp")}, {"s-one-more", desired(port, clients+1, "tcp,udp")}} {
			began := time.Now()
			if err := engine.Apply(b.Context(), step.to); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(time.Since(began).Seconds(), step.metric)
		}
	}
}

// benchID is the UUID of the client whose slot is n.
func benchID(n int) string {
	return fmt.Sprintf("%08x-1111-4111-8111-%012x", uint32(n)*2654435761, n)
}

// benchState has n clients, whose slots are 1 to n.
func benchState(b *testing.B, port, n int) state.State {
	b.Helper()
	clients := make([]string, n)
	slots := make(map[string]uint32, n)
	for i := range clients {
		id := benchID(i + 1)
		clients[i], slots[id] = fmt.Sprintf(`{"id":%q,"email":%q}`, id, id), uint32(i+1)
	}
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless",
		"settings":{"decryption":"none","clients":[%s]}}]}`, port, strings.Join(clients, ","))), func(string) bool { return true })
	if err != nil {
		b.Fatal(err)
	}
	for i := range s.Inbounds["in-1"].Clients {
		c := s.Inbounds["in-1"].Clients[i]
		c.Slot = slots[c.Key]
	}
	return s
}

// benchConfig is the configuration of an engine with real workers.
func benchConfig(path string) xray.Config {
	return xray.Config{
		Worker:       supervise.Spec{Path: os.Args[0], Env: []string{workerEnv + "=1"}},
		CountersPath: path, ClientNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, DrainTimeout: time.Minute,
	}
}

// benchEngine is an engine with real workers.
func benchEngine(b *testing.B) (*xray.Engine, *counters.File) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "counters")
	file, err := counters.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = file.Close() })
	engine, err := xray.New(benchConfig(path), xray.Deps{
		Log: slog.New(slog.DiscardHandler), Presence: func(ipc.Presence) {}, SlotsClosed: func([]uint32) {}, Failed: func(xray.Failure) {},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = engine.Run(ctx); close(done) }()
	b.Cleanup(func() { cancel(); <-done })
	return engine, file
}

func benchPort(b *testing.B) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// knock asks the VLESS inbound as a client for a connection back to itself, and
// returns once it is accepted: an unknown client is not even answered.
func knock(port int, uuid string) error {
	id, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer conn.Close()
	to := l.Addr().(*net.TCPAddr).Port
	hello := append(append([]byte{0}, id...), 0, 1, byte(to>>8), byte(to), 1, 127, 0, 0, 1)
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	back := make(chan error, 1)
	go func() {
		far, err := l.Accept()
		if err == nil {
			_, err = far.Write([]byte{1})
			_ = far.Close()
		}
		back <- err
	}()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 3)); err != nil { // version, no addons, the byte
		return err
	}
	return <-back
}
