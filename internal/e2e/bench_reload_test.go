package e2e

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// heartbeats records when a node's heartbeats begin and end.
type heartbeats struct {
	mu    sync.Mutex
	ended time.Time       // the last one
	gaps  []time.Duration // from the end of one to the beginning of the next
	boots map[string]bool // daemons that have sent one
}

func (h *heartbeats) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wire.PathHeartbeat {
			next.ServeHTTP(w, r)
			return
		}
		h.mu.Lock()
		if !h.ended.IsZero() {
			h.gaps = append(h.gaps, time.Since(h.ended))
		}
		h.boots[r.Header.Get(wire.HeaderNodeBoot)] = true
		h.mu.Unlock()
		next.ServeHTTP(w, r)
		h.mu.Lock()
		h.ended = time.Now()
		h.mu.Unlock()
	})
}

func (h *heartbeats) daemons() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.boots)
}

// BenchmarkReload reports how long Core hears nothing of a node while the daemon gives way to another
// build at a reload: from the end of one heartbeat to the beginning of the next. The bound is a second.
// It also reports how long the same program takes to start and do nothing.
func BenchmarkReload(b *testing.B) {
	p := benchPrograms(b)
	other, err := secondBuild(p)
	benchCheck(b, err)
	core := newScriptedCore(b)
	target, err := url.Parse(core.URL)
	benchCheck(b, err)
	heard := &heartbeats{boots: map[string]bool{}}
	front := httptest.NewServer(heard.handler(httputil.NewSingleHostReverseProxy(target)))
	b.Cleanup(front.Close)
	dir := b.TempDir()
	agent, err := NewAgent(b.Context(), p, filepath.Join(dir, "agent"), "", "--core", front.URL, "--code", "any")
	benchCheck(b, err)
	builds := []string{p.Agent, other}
	agent.path = filepath.Join(dir, "node-agent")
	put := func(build string) {
		b.Helper()
		data, err := os.ReadFile(build)
		benchCheck(b, err)
		benchCheck(b, errors.Join(os.WriteFile(agent.path+".new", data, 0o755), os.Rename(agent.path+".new", agent.path)))
	}
	put(builds[0])
	benchCheck(b, agent.Start(b.Context()))
	b.Cleanup(agent.Kill)
	port, err := FreePort()
	benchCheck(b, err)
	in := with(withClients(vlessInbound(port, nil), []any{map[string]any{"id": soleClient}}), "tag", "in-1")
	benchCheck(b, core.publish(map[string]wire.ClientRef{soleClient: {UserID: 1}}, map[string]any{"inbounds": []any{in}}))
	benchCheck(b, core.applied(b.Context()))
	var gaps, bare []time.Duration
	for i := 1; b.Loop(); i++ {
		began := time.Now()
		if _, _, err := output(context.Background(), p.Agent, "version"); err != nil {
			b.Fatal(err)
		}
		bare = append(bare, time.Since(began))
		put(builds[i%2])
		before := heard.daemons()
		heard.mu.Lock()
		heard.gaps = nil
		heard.mu.Unlock()
		benchCheck(b, agent.cmd.Process.Signal(syscall.SIGHUP))
		benchCheck(b, Eventually(b.Context(), func() error {
			if heard.daemons() == before {
				return errors.New("no heartbeat of the next daemon")
			}
			return nil
		}))
		heard.mu.Lock()
		gaps = append(gaps, slices.Max(heard.gaps))
		heard.mu.Unlock()
	}
	slices.Sort(gaps)
	slices.Sort(bare)
	b.ReportMetric(float64(gaps[len(gaps)/2].Milliseconds()), "ms-gap")
	b.ReportMetric(float64(gaps[len(gaps)-1].Milliseconds()), "ms-longest-gap")
	b.ReportMetric(float64(bare[len(bare)/2].Milliseconds()), "ms-bare-start")
}
