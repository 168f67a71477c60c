package xray_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"nodeagent/internal/counters"
	"nodeagent/internal/supervise"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
)

// How long a daemon takes to adopt a worker with 100,000 clients and to find that it runs what is
// wanted, beside how long a new worker takes to load them.
func BenchmarkAdoption(b *testing.B) {
	const clients = 100_000
	port := benchPort(b)
	s := benchState(b, port, clients)
	path := filepath.Join(b.TempDir(), "counters")
	file, err := counters.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if err := file.Grow(clients + 1); err != nil {
		b.Fatal(err)
	}
	config := benchConfig(path)
	config.Secret, config.OrphanTimeout = []byte("the secret of the benchmark"), time.Hour
	run := func() (*xray.Engine, xray.Adopted, func(cause error)) {
		engine, err := xray.New(config, xray.Deps{
			Log: slog.New(slog.DiscardHandler), Presence: func(ipc.Presence) {}, SlotsClosed: func([]uint32) {}, Failed: func(xray.Failure) {},
		})
		if err != nil {
			b.Fatal(err)
		}
		adopted, err := engine.Adopt(context.Background(), file.Epoch())
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		done := make(chan struct{})
		go func() { _ = engine.Run(ctx); close(done) }()
		return engine, adopted, func(cause error) { cancel(cause); <-done }
	}
	restore := func(engine *xray.Engine) {
		if err := engine.Restore(context.Background(), s); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	engine, _, end := run()
	restore(engine)
	b.ReportMetric(time.Since(began).Seconds(), "s/load")
	var adopting time.Duration
	rounds := 0
	for b.Loop() {
		end(supervise.ErrLeave)
		began := time.Now()
		var adopted xray.Adopted
		engine, adopted, end = run()
		restore(engine)
		adopting += time.Since(began)
		if rounds++; adopted.Workers != 1 {
			b.Fatal("nothing was adopted")
		}
	}
	b.ReportMetric(adopting.Seconds()/float64(rounds), "s/adoption")
	end(nil)
}
