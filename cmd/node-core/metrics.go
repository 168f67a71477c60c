package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
	"nodeagent/internal/secret"
)

// metricFlags say where metrics are served.
type metricFlags struct {
	listen    string
	tokenFile string
}

func (f *metricFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.listen, "metrics-listen", "", "HOST:PORT to serve /metrics for Prometheus on; loopback, or with --metrics-token-file over TLS (default nowhere)")
	flags.StringVar(&f.tokenFile, "metrics-token-file", "", "with --metrics-listen: file with a token that Prometheus has to send ('Authorization: Bearer TOKEN')")
}

func (f *metricFlags) validate(insecureHTTP bool) error {
	if f.listen == "" {
		if f.tokenFile != "" {
			return errors.New("--metrics-token-file goes with --metrics-listen")
		}
		return nil
	}
	loopback, err := isLoopback(f.listen)
	switch {
	case err != nil:
		return fmt.Errorf("read --metrics-listen: %w; want HOST:PORT", err)
	case !loopback && f.tokenFile == "":
		return fmt.Errorf("--metrics-listen %s is no loopback address: give --metrics-token-file too, or listen on 127.0.0.1", f.listen)
	case !loopback && insecureHTTP:
		return fmt.Errorf("--insecure-http is for loopback addresses alone, and --metrics-listen %s is none", f.listen)
	}
	return nil
}

func isLoopback(address string) (bool, error) {
	host, _, err := net.SplitHostPort(address)
	return host == "localhost" || net.ParseIP(host).IsLoopback(), err
}

// requestMetrics counts requests by route and status. Requests to paths that no operation has, or
// whose sender is not known, have the route "other": a stranger makes no label.
type requestMetrics struct {
	admin   map[string]string // the routes of the admin API, by their nouns
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// newRequestMetrics makes the metrics. nouns are those of the admin API.
func newRequestMetrics(nouns ...string) requestMetrics {
	admin := map[string]string{}
	for _, noun := range nouns {
		admin[noun] = coreapi.Prefix + "/" + noun
	}
	return requestMetrics{
		admin: admin,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "node_core_requests_total", Help: "Requests by route and status, since Core started."}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "node_core_request_seconds", Help: "How long answers took. Core holds heartbeats, waits and streams on purpose.",
			Buckets: []float64{0.005, 0.02, 0.1, 0.5, 2, 10, 60},
		}, []string{"route"}),
	}
}

// watch counts the requests of a handler.
func (m requestMetrics) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: w}
		start := time.Now()
		defer func() {
			status := seen.status
			if status == 0 {
				status = http.StatusOK
			}
			route := m.routeOf(r, status)
			m.total.WithLabelValues(route, strconv.Itoa(status)).Inc()
			m.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
		}()
		next.ServeHTTP(seen, r)
	})
}

const otherRoute = "other"

// routeOf names the route of a request that was answered. Of the admin API it is the noun alone. No
// part of a path that a peer writes gets into it: a mux redirects each path that is not clean, such
// as /a/../b, before any handler sees it, and the labels stay for as long as Core runs.
func (m requestMetrics) routeOf(r *http.Request, status int) string {
	switch status {
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect:
		return otherRoute
	}
	if noun, is := strings.CutPrefix(r.URL.Path, coreapi.Prefix+"/"); is {
		noun, _, _ = strings.Cut(noun, "/")
		route, known := m.admin[noun]
		switch status {
		case http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed:
			known = false
		}
		if !known {
			return otherRoute
		}
		return route
	}
	_, path, _ := strings.Cut(r.Pattern, " ")
	switch {
	case path != "" && path != "/":
		return path
	case r.Pattern == corestore.LinkPrefix:
		return r.Pattern
	}
	return otherRoute
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap returns the writer below, for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var _ http.Flusher = (*statusWriter)(nil)

// Flush is for writers above this one that look for it without http.ResponseController, such as that of gzhttp.
func (w *statusWriter) Flush() {
	_ = http.NewResponseController(w.ResponseWriter).Flush() // not every writer can
}

// coreMetrics reads the numbers of the database when Prometheus asks. No label names a user.
type coreMetrics struct {
	store   *corestore.Store
	builds  func() int64
	backups *backups // nil for none

	info, nodes, subscriptions, users, online, bytes, size          *prometheus.Desc
	built, waiting, oldest, failing, givenUp, lastBackup, notBacked *prometheus.Desc
}

func newCoreMetrics(store *corestore.Store, builds func() int64, b *backups) *coreMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("node_core_"+name, help, labels, nil)
	}
	return &coreMetrics{
		store: store, builds: builds, backups: b,
		info:          desc("info", "The version; always 1.", "version"),
		nodes:         desc("nodes", "Nodes by state.", "state"),
		subscriptions: desc("subscriptions", "Subscriptions by status.", "status"),
		users:         desc("users", "Users."),
		online:        desc("online_sessions", "Clients that are online, as nodes said last: one for each node, user, protocol and address."),
		bytes:         desc("node_bytes_total", "Bytes of the usage that nodes have reported to this instance, since it started.", "node", "direction"),
		built:         desc("config_builds_total", "Configurations of nodes that were built, since Core started."),
		size:          desc("database_bytes", "Size of the database."),
		waiting:       desc("webhook_waiting", "Events that are not delivered yet.", "webhook"),
		oldest:        desc("webhook_lag_seconds", "Age of the oldest of them; 0 for none.", "webhook"),
		failing:       desc("webhook_failing", "1 where an event was given up, and none was delivered since.", "webhook"),
		givenUp:       desc("webhook_given_up_total", "Events that were given up, since the webhook was added.", "webhook"),
		lastBackup:    desc("backup_timestamp_seconds", "When the newest scheduled backup was made; absent without one."),
		notBacked:     desc("backup_failures_total", "Scheduled backups that could not be made, since Core started."),
	}
}

// Describe implements prometheus.Collector.
func (m *coreMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.info, m.nodes, m.subscriptions, m.users, m.online, m.bytes, m.size, m.built, m.waiting, m.oldest, m.failing, m.givenUp, m.lastBackup, m.notBacked} {
		to <- d
	}
}

// metricsTimeout bounds how long the database may take for one answer.
const metricsTimeout = 10 * time.Second

// Collect implements prometheus.Collector.
func (m *coreMetrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), metricsTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge(m.info, 1, version)
	counter(m.built, m.builds())
	if m.backups != nil {
		last, failures := m.backups.numbers()
		if !last.IsZero() {
			gauge(m.lastBackup, float64(last.Unix()))
		}
		counter(m.notBacked, failures)
	}
	stats, err := m.store.Stats(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(m.nodes, err)
		return
	}
	for _, state := range []string{"online", "offline", "degraded", "error", "pending"} {
		gauge(m.nodes, float64(stats.NodesByState[state]), state)
	}
	for status, count := range stats.SubscriptionsByStatus {
		gauge(m.subscriptions, float64(count), status)
	}
	gauge(m.users, float64(stats.Users))
	gauge(m.online, float64(stats.Online))
	gauge(m.size, float64(stats.DatabaseBytes))
	for node, t := range stats.Traffic {
		counter(m.bytes, t.Up, node, "up")
		counter(m.bytes, t.Down, node, "down")
	}
	hooks, err := m.store.Webhooks(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(m.waiting, err)
		return
	}
	for _, h := range hooks {
		id := strconv.FormatInt(h.ID, 10)
		gauge(m.waiting, float64(h.Waiting), id)
		lag := 0.0
		if h.OldestAt != nil {
			lag = max(0, time.Since(*h.OldestAt).Seconds())
		}
		gauge(m.oldest, lag, id)
		failing := 0.0
		if h.State == "failing" {
			failing = 1
		}
		gauge(m.failing, failing, id)
		counter(m.givenUp, h.GivenUp, id)
	}
}

// metricsHandler serves /metrics, to those who have the token where there is one.
func metricsHandler(token secret.Text, log *slog.Logger, all ...prometheus.Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(append(all, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))...)
	served := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: 2, Timeout: 2 * metricsTimeout,
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if token != "" && !isToken(r.Header.Get("Authorization"), token) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="metrics"`)
			http.Error(w, "the request has no header 'Authorization: Bearer TOKEN' with the token of --metrics-token-file", http.StatusUnauthorized)
			return
		}
		served.ServeHTTP(w, r)
	})
	return mux
}

// serveMetrics listens for Prometheus, where the flags say so. On another address than loopback it is
// served as the node routes are, over TLS.
func (s *shared) serveMetrics(f metricFlags, tlsConfig *tls.Config, log *slog.Logger, all ...prometheus.Collector) ([]served, error) {
	if f.listen == "" {
		return nil, nil
	}
	var token secret.Text
	if f.tokenFile != "" {
		var err error
		if token, err = s.readSecret("token", f.tokenFile); err != nil {
			return nil, err
		}
	}
	loopback, err := isLoopback(f.listen)
	if err != nil {
		return nil, err
	}
	if loopback {
		tlsConfig = nil
	}
	listener, err := net.Listen("tcp", f.listen)
	if err != nil {
		return nil, fmt.Errorf("listen for Prometheus: %w; choose another address or port with --metrics-listen", err)
	}
	log.Info("metrics are served", logkey.Listen, listener.Addr().String())
	return []served{{listener: listener, server: newServer(metricsHandler(token, log, all...), tlsConfig, log)}}, nil
}

// isToken compares sums: their comparison tells nothing of the token, nor of its length.
func isToken(header string, token secret.Text) bool {
	scheme, given, _ := strings.Cut(header, " ")
	a, b := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256([]byte(token.Reveal()))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
