package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/client_golang/prometheus"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/nodeapi"
	"nodeagent/cmd/node-core/internal/sublink"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

// The metrics have what happened, and no name of a user. They are well-formed, and for those who have
// the token.
func TestMetrics(t *testing.T) {
	store, err := corestore.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	user, err := store.AddUser(t.Context(), "alice-the-user")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := store.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	node, _, err := store.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	protocol, err := store.AddProtocol(t.Context(), corestore.Protocol{NodeID: node.ID, Protocol: "vless", Port: 443, Config: []byte(`{"protocol":"vless","port":443,"settings":{"decryption":"none"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is a repetition, which counts nothing
		if _, err := store.AddUsage(t.Context(), node.ID, "key", []wire.UsageEntry{{UserID: user.ID, SubscriptionID: &sub.ID, NodeProtocolID: protocol.ID, BytesUp: 1234, BytesDown: 5678, RecordedAt: time.Now()}}); err != nil {
			t.Fatal(err)
		}
	}
	key := []byte("0123456789012345678901234567890123")
	if _, err := store.AddWebhook(t.Context(), "https://shop.example/secret", nil, key); err != nil {
		t.Fatal(err)
	}
	if err := store.TellFailedBackup(t.Context(), "x", time.Now()); err != nil {
		t.Fatal(err)
	}
	requests := newRequestMetrics("users")
	served := requests.watch(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Pattern = "POST /node/usage"
		if strings.HasPrefix(r.URL.Path, "/api") {
			r.Pattern = ""
		}
		if strings.Contains(r.URL.Path, "no-such") {
			r.Pattern = "/"
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	for _, path := range []string{"/node/usage", "/no-such/a", "/no-such/b", "/api/v1/users/alice-the-user", "/api/v1/no-such-c"} {
		served.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, nil))
	}
	b := &backups{last: time.Unix(1_800_000_000, 0), failures: 3}
	handler := metricsHandler("right", slog.New(slog.DiscardHandler), requests.total, requests.seconds, newCoreMetrics(store, func() int64 { return 7 }, b))
	ask := func(token secret.Text) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token.Reveal())
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	for _, token := range []secret.Text{"", "wrong", "righ", "right "} {
		if w := ask(token); w.Code != http.StatusUnauthorized && token != "right " || strings.Contains(w.Body.String(), "node_core") && token != "right " {
			t.Errorf("with the token %q: %d", token.Reveal(), w.Code)
		}
	}
	text := ask("right").Body.String()
	for _, want := range []string{
		`node_core_info{version="dev"} 1`, `node_core_nodes{state="pending"} 1`, `node_core_nodes{state="offline"} 0`, `node_core_subscriptions{status="active"} 1`,
		`node_core_users 1`, `node_core_online_sessions 0`, `node_core_node_bytes_total{direction="up",node="fra1"} 1234`, `node_core_node_bytes_total{direction="down",node="fra1"} 5678`,
		`node_core_requests_total{route="/node/usage",status="200"} 1`, `node_core_requests_total{route="other",status="404"} 3`, `node_core_requests_total{route="/api/v1/users",status="200"} 1`,
		`node_core_request_seconds_count{route="/node/usage"} 1`, `node_core_webhook_failing{webhook="`, `node_core_backup_timestamp_seconds 1.8e+09`, `node_core_backup_failures_total 3`, `node_core_config_builds_total 7`, "go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
	waiting := false
	for line := range strings.Lines(text) {
		waiting = waiting || strings.HasPrefix(line, "node_core_webhook_waiting{") && strings.HasSuffix(line, " 1\n")
	}
	if !waiting {
		t.Error("nothing says that an event waits for the webhook")
	}
	for _, secret := range []string{"alice", "secret", "no-such", string(key[:10])} {
		if strings.Contains(text, secret) {
			t.Errorf("the metrics have %q", secret)
		}
	}
}

// The number of series does not grow by what strangers ask for: also not by paths that a mux
// redirects before any handler sees them, and by those that are no UTF-8.
func TestStrangersMakeNoSeries(t *testing.T) {
	store, err := corestore.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log := slog.New(slog.DiscardHandler)
	wake := hub.New()
	api := adminapi.NewServer(t.Context(), store, wake, "https://core.example", "", log)
	requests := newRequestMetrics(api.Nouns()...)
	routes := http.NewServeMux()
	routes.Handle(corestore.LinkPrefix, sublink.New(store, sublink.Options{}, log))
	routes.Handle("/", nodeapi.New(t.Context(), store, wake, log).Handler())
	series := func() (n int) {
		for _, c := range []prometheus.Collector{requests.total, requests.seconds} {
			found := make(chan prometheus.Metric, 1000)
			c.Collect(found)
			n += len(found)
		}
		return n
	}
	for name, handler := range map[string]http.Handler{"nodes": routes, "admin API": api.TokenHandler(), "socket": api.SocketHandler()} {
		served := requests.watch(handler)
		ask := func(i int) {
			for _, path := range []string{
				"/api/v1/x%d/../y", "/api/v1/x%d", "/api/v1//x%d", "/api/v1/%%ff%d", "/api/v1/%%ff%d/../y", "/api/v1/users/../x%d", "/sub/../x%d", "/x%d/../node/usage", "/%%ff%d/..",
			} {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf(path, i), nil)
				served.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		ask(0)
		before := series()
		for i := range 20 {
			ask(i + 1)
		}
		if after := series(); after != before {
			t.Errorf("%s: %d series became %d", name, before, after)
		}
	}
	requests.watch(api.SocketHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/users", nil))
	if !requests.total.DeleteLabelValues("/api/v1/users", "200") {
		t.Error("a list of users was not counted under its noun")
	}
}

// The writers of compression and of metrics pass a handler's Flush on, so that the client gets the bytes at once. Small
// answers to nodes are sent in small frames by that.
func TestMetricsPassFlushesOn(t *testing.T) {
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(0), gzhttp.ContentTypes([]string{"application/json"}), gzhttp.EnableZstd(false))
	if err != nil {
		t.Fatal(err)
	}
	const part = `{"part":1}`
	for _, encoding := range []string{"zstd", "gzip"} { // what the handler has compressed itself, and what it has not
		arrived := make(chan struct{})
		server := httptest.NewUnstartedServer(newRequestMetrics().watch(compress(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if encoding == "zstd" {
				w.Header().Set("Content-Encoding", encoding)
			}
			_, _ = io.WriteString(w, part)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Errorf("%s: %v", encoding, err)
			}
			select {
			case <-arrived:
			case <-r.Context().Done():
			}
		}))))
		server.EnableHTTP2 = true
		server.StartTLS()
		t.Cleanup(server.Close)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if encoding == "zstd" {
			request.Header.Set("Accept-Encoding", encoding) // otherwise the client asks for gzip by itself
		}
		answer, err := server.Client().Do(request)
		if err != nil {
			t.Fatalf("%s: nothing arrives before the handler ends: %v", encoding, err)
		}
		defer answer.Body.Close()
		got := make([]byte, len(part))
		if _, err := io.ReadFull(answer.Body, got); err != nil || string(got) != part || answer.ProtoMajor != 2 {
			t.Errorf("%s over %s: got %q before the handler ends, %v", encoding, answer.Proto, got, err)
		}
		close(arrived)
	}
}

func TestWhereMetricsMayBe(t *testing.T) {
	for _, c := range []struct {
		listen, file string
		insecure     bool
		good         bool
	}{
		{"", "", false, true},
		{"", "f", false, false},
		{"127.0.0.1:1", "", true, true},
		{"[::1]:1", "", false, true},
		{"localhost:1", "", false, true},
		{"0.0.0.0:1", "", false, false},
		{":1", "", false, false},
		{"0.0.0.0:1", "f", false, true},
		{"0.0.0.0:1", "f", true, false},
		{"x", "f", false, false},
	} {
		f := metricFlags{listen: c.listen, tokenFile: c.file}
		if err := f.validate(c.insecure); (err == nil) != c.good {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
