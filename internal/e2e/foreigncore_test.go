package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// foreignCore is a Core that somebody else wrote: of docs/protocol.md it knows the routes that are not
// optional, and no header but the key. It shares no code with ours.
type foreignCore struct {
	mu      sync.Mutex
	body    string
	applied string
	asked   []string // what config requests asked for
	errors  []string
}

func (c *foreignCore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path != "/node/register" && r.Header.Get("x-node-auth-key") != "a key" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	revision := c.body[len(`{"revision":`):strings.Index(c.body, ",")]
	switch r.Method + " " + r.URL.Path {
	case "POST /node/register":
		_, _ = io.WriteString(w, `{"authKey":"a key","nodeId":7}`)
	case "POST /node/heartbeat":
		_, _ = fmt.Fprintf(w, `{"ok":true,"needSync":%t}`, !strings.Contains(string(body), `"revision":`+revision))
	case "GET /node/config/latest":
		c.asked = append(c.asked, r.Header.Get("A-IM"))
		_, _ = io.WriteString(w, c.body)
	case "POST /node/config/applied":
		c.applied = string(body)
		_, _ = io.WriteString(w, `{"ok":true}`)
	case "POST /node/error":
		c.errors = append(c.errors, string(body))
		_, _ = io.WriteString(w, `{"ok":true}`)
	case "POST /node/usage", "POST /node/outbound-usage", "POST /node/session-events":
		_, _ = io.WriteString(w, `{"ok":true}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// A node serves under a Core that knows neither deltas nor ETags: each document is taken as a whole.
func TestAForeignCoreWithoutDeltas(t *testing.T) {
	const ann, bob = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	port, err := FreePort()
	must(t, err)
	document := func(revision int, ids ...string) string {
		var entries, clients []string
		for i, id := range ids {
			entries = append(entries, fmt.Sprintf(`"%s":{"userId":%d,"subscriptionId":null}`, id, i+1))
			clients = append(clients, fmt.Sprintf(`{"id":"%s"}`, id))
		}
		return fmt.Sprintf(`{"revision":%d,"clientMap":{%s},"services":{"xray":{"inbounds":[{"tag":"vless-3","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[%s]}}],"outbounds":[{"tag":"direct","protocol":"freedom","settings":{"finalRules":[{"action":"allow"}]}}]}}}`,
			revision, strings.Join(entries, ","), port, strings.Join(clients, ","))
	}
	core := &foreignCore{body: document(1, ann)}
	server := httptest.NewServer(core)
	t.Cleanup(server.Close)
	w := &world{t: t, ctx: t.Context(), dir: t.TempDir(), progs: programs(t)}
	w.agent, err = NewAgent(w.ctx, w.progs, filepath.Join(w.dir, "agent"), quickConfig, "--core", server.URL, "--code", "any")
	must(t, err)
	must(t, w.agent.Start(w.ctx))
	t.Cleanup(func() {
		w.agent.Kill()
		w.showLog("agent", w.agent.process)
	})
	runs := func(revision int) {
		t.Helper()
		must(t, Eventually(w.ctx, func() error {
			core.mu.Lock()
			defer core.mu.Unlock()
			var applied struct{ Revision int }
			if _ = json.Unmarshal([]byte(core.applied), &applied); applied.Revision != revision {
				return fmt.Errorf("the node has applied %q, want revision %d; errors: %q", core.applied, revision, core.errors)
			}
			return nil
		}))
	}
	target := w.target()
	let := func(id string) error {
		c := w.client(map[string]any{"protocol": "vless", "settings": vnext(port, map[string]any{"id": id, "encryption": "none"})})
		conn, err := c.Dial(target.Addr())
		if err != nil {
			return err
		}
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(Patience)))
		return Exchange(conn, 1000, 1000)
	}
	runs(1)
	must(t, let(ann))
	core.mu.Lock()
	core.body = document(2, bob)
	core.mu.Unlock()
	runs(2)
	must(t, let(bob))
	if let(ann) == nil {
		t.Error("a client that was removed is let in")
	}
	core.mu.Lock()
	defer core.mu.Unlock()
	if len(core.errors) > 0 || len(core.asked) < 2 {
		t.Errorf("%d documents were fetched, and the node told %q", len(core.asked), core.errors)
	}
}
