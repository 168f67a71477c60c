package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// balancerRow is a balancer of the node over the outbounds way-dead and way-live.
type balancerRow struct {
	name     string
	strategy string
	selector string
	observer string // a member of services.xray
	way      string // the tag of the outbound that must take every connection
}

// probed is a site that the observer of each row probes at a path of its own.
type probed struct {
	*httptest.Server
	mu    sync.Mutex
	paths map[string]int // probes by path
}

func newProbed(t *testing.T) *probed {
	t.Helper()
	p := &probed{paths: map[string]int{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.paths[r.URL.Path]++
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(p.Close)
	return p
}

// path is that of a row's probes. A worker that begins with a row knows nothing of the rows before.
func (r balancerRow) path() string { return "/" + strings.ReplaceAll(r.name, " ", "-") }

func (p *probed) observer(r balancerRow) map[string]any {
	ways, site := []string{"way-"}, p.URL+r.path()
	if r.observer == "observatory" {
		return map[string]any{"subjectSelector": ways, "probeURL": site, "probeInterval": "1s", "enableConcurrency": true}
	}
	return map[string]any{"subjectSelector": ways, "pingConfig": map[string]any{"destination": site, "interval": "10s", "sampling": 1, "timeout": "1s"}}
}

// await waits until the observer of a row knows the state of both outbounds. The observatory begins a
// round once it has stored the results of the round before. burstObservatory probes each
// outbound at once, and then once in every ten seconds, its shortest interval
// (app/observatory/burst/healthping.go:68). When its second probe arrives the result of the
// first one is stored.
func (p *probed) await(t *testing.T, r balancerRow) {
	t.Helper()
	must(t, Eventually(t.Context(), func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if have := p.paths[r.path()]; have < 2 {
			return fmt.Errorf("%d probes of %s came, want 2", have, r.name)
		}
		return nil
	}))
}

// config returns the members of services.xray other than the inbound.
func (r balancerRow) config(dead int, observer map[string]any) map[string]any {
	return map[string]any{
		"outbounds": []any{
			map[string]any{"tag": "block", "protocol": "blackhole"},
			map[string]any{"tag": "way-dead", "protocol": "socks", "settings": servers(dead, map[string]any{})},
			map[string]any{"tag": "way-live", "protocol": "freedom"},
			map[string]any{"tag": "fall", "protocol": "freedom"},
		},
		"routing": map[string]any{
			"balancers": []any{map[string]any{
				"tag": "b", "selector": []string{r.selector}, "strategy": map[string]any{"type": r.strategy}, "fallbackTag": "fall",
			}},
			"rules": []any{map[string]any{"network": "tcp,udp", "balancerTag": "b"}},
		},
		r.observer: observer,
	}
}

// Each balancer chooses, for every connection, an outbound that its observer found alive. It
// uses the fallback where the observer found none.
func TestBalancers(t *testing.T) {
	t.Parallel()
	w := newScriptedWorld(t, quickConfig)
	site := newProbed(t)
	port, err := FreePort()
	must(t, err)
	dead, err := FreePort()
	must(t, err)
	client := w.client(map[string]any{"protocol": "vless", "settings": soleSettings(port)})
	want := map[string]Traffic{}
	for _, r := range []balancerRow{
		{"leastPing", "leastPing", "way-", "observatory", "way-live"},
		{"random", "random", "way-", "observatory", "way-live"},
		{"roundRobin", "roundRobin", "way-", "observatory", "way-live"},
		{"leastPing falls back", "leastPing", "way-dead", "observatory", "fall"},
		{"random falls back", "random", "way-dead", "observatory", "fall"},
		{"roundRobin falls back", "roundRobin", "way-dead", "observatory", "fall"},
		{"leastLoad", "leastLoad", "way-", "burstObservatory", "way-live"},
		{"leastLoad falls back", "leastLoad", "way-dead", "burstObservatory", "fall"},
		{"random with burstObservatory", "random", "way-", "burstObservatory", "way-live"},
	} {
		t.Run(r.name, func(t *testing.T) {
			w.serveSole(port, r.config(dead, site.observer(r)))
			site.await(t, r)
			target := w.target()
			for range 10 {
				conn := w.dial(client, target)
				must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
				must(t, Exchange(conn, 1, 1))
				must(t, conn.Close())
			}
			want[r.way] = want[r.way].plus(target.Traffic())
		})
	}
	w.stopAgent()
	w.scripted.mu.Lock()
	defer w.scripted.mu.Unlock()
	have := w.scripted.outbounds
	if have["fall"] != want["fall"] {
		t.Errorf("outbound fall: Core was told %+v, the target counted %+v", have["fall"], want["fall"])
	}
	// The observatory's probes are counted too.
	if live := have["way-live"]; live.Up <= want["way-live"].Up || live.Down <= want["way-live"].Down {
		t.Errorf("outbound way-live: Core was told %+v, want more than the target's %+v", live, want["way-live"])
	}
}
