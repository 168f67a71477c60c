package main

import (
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/importer"
	"nodeagent/coreapi"
)

// manyUsers makes Marzban's database have so many users, each with VLESS and Trojan.
func manyUsers(b *testing.B, users int) string {
	b.Helper()
	raw, err := os.ReadFile("internal/importer/testdata/marzban/db.sqlite3")
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "db.sqlite3")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	numbers := fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < %d) `, users+99)
	for _, statement := range []string{
		`INSERT INTO users (id, username, status, used_traffic, data_limit, created_at) ` + numbers + `SELECT i, 'user'||i, 'active', i, 1000000000, '2026-01-01 00:00:00' FROM n`,
		`INSERT INTO proxies (user_id, type, settings) ` + numbers + `SELECT i, 'VLESS', printf('{"id": "%08x-4444-4444-8444-444444444444", "flow": ""}', i) FROM n`,
		`INSERT INTO proxies (user_id, type, settings) ` + numbers + `SELECT i, 'Trojan', printf('{"password": "password%d"}', i) FROM n`,
	} {
		if _, err := db.ExecContext(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	return path
}

// cpu returns the processor time of this process in seconds.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// BenchmarkImport imports 100,000 users of Marzban over the socket: it reads the file, makes the plan and
// carries it out.
func BenchmarkImport(b *testing.B) {
	const users = 100_000
	path := manyUsers(b, users)
	for b.Loop() {
		b.StopTimer()
		client := benchCore(b)
		b.StartTimer()
		start := cpu()
		r, err := importer.Marzban(b.Context(), path, "internal/importer/testdata/marzban/xray_config.json", importer.Options{Node: "fra1", Now: time.Now()})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(cpu()-start, "read-cpu-s")
		for _, dryRun := range []bool{true, false} {
			report, err := sendImport(b.Context(), client, r, dryRun)
			if err != nil {
				b.Fatal(err)
			}
			if report.Added.Users != users+6 {
				b.Fatalf("added are %+v", report.Added)
			}
		}
		b.ReportMetric(cpu()-start, "cpu-s")
		b.ReportMetric((cpu()-start)/users*1e6, "cpu-µs/user")
	}
}

// benchCore makes a Core with a node, and a client of it.
func benchCore(b *testing.B) *coreapi.Client {
	b.Helper()
	dir := b.TempDir()
	store, err := corestore.Open(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: adminapi.NewServer(b.Context(), store, hub.New(), "https://core.example", "", slog.New(slog.DiscardHandler)).SocketHandler()}
	go func() { _ = server.Serve(l) }()
	b.Cleanup(func() { _ = server.Close() })
	client := coreapi.OverSocket(dir, filepath.Join(dir, "socket"))
	b.Cleanup(client.Close)
	if _, err := client.AddNode(b.Context(), coreapi.NewNode{Name: "fra1"}); err != nil {
		b.Fatal(err)
	}
	return client
}
