package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nodeagent/agent"
	"nodeagent/internal/logkey"
	"nodeagent/store"
	"nodeagent/telemt"
)

// metrics tells the daemon's status to Prometheus. No label names a client, a
// key or an address.
type metrics struct {
	status func() (agent.Status, error)
	all    []metric
}

// metric is one family, with how its samples are read from a status.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(s agent.Status, sample func(value float64, labels ...string))
}

// Bounds of a client of the metrics, who may come over the network.
const (
	metricsTimeout = 2 * time.Minute // between two requests, and to read an answer
	metricsHeader  = 16 << 10        // bytes
)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

func newMetrics(status func() (agent.Status, error)) *metrics {
	m := &metrics{status: status}
	m.addDaemon()
	m.addXray()
	m.addMTProto()
	return m
}

func (m *metrics) add(name, help string, kind prometheus.ValueType, labels []string, read func(agent.Status, func(float64, ...string))) {
	m.all = append(m.all, metric{prometheus.NewDesc("node_agent_"+name, help, labels, nil), kind, read})
}

// one adds a family of one sample.
func (m *metrics) one(name, help string, kind prometheus.ValueType, value func(agent.Status) float64) {
	m.add(name, help, kind, nil, func(s agent.Status, sample func(float64, ...string)) { sample(value(s)) })
}

// moment adds a family of one sample in Unix seconds, none for a time that is zero.
func (m *metrics) moment(name, help string, value func(agent.Status) time.Time) {
	m.add(name, help, gauge, nil, func(s agent.Status, sample func(float64, ...string)) {
		if at := value(s); !at.IsZero() {
			sample(float64(at.Unix()))
		}
	})
}

func (m *metrics) addDaemon() {
	m.add("info", "Versions; always 1.", gauge, []string{"version", "xray_version"}, func(s agent.Status, sample func(float64, ...string)) {
		sample(1, version, s.Engines.Xray.Version)
	})
	m.moment("last_heartbeat_timestamp_seconds", "When Core last answered a heartbeat; absent until it does.", func(s agent.Status) time.Time { return s.Core.LastHeartbeat })
	m.one("core_rejects_key", "1 where Core does not accept this node's key.", gauge, func(s agent.Status) float64 { return truth(s.Core.Rejected != "") })
	m.one("clock_skew_seconds", "This host's clock less Core's.", gauge, func(s agent.Status) float64 { return s.Core.SkewSeconds })
	m.add("revision", "The configuration that runs, and the one that Core wants.", gauge, []string{"which"}, func(s agent.Status, sample func(float64, ...string)) {
		for which, revision := range map[string]*int64{"running": s.Revision.Running, "wanted": s.Revision.Wanted} {
			if revision != nil {
				sample(float64(*revision), which)
			}
		}
	})
	m.add("client_bytes_total", "Bytes that clients moved since the daemon started, seen from the client.", counter, []string{"engine", "direction"}, func(s agent.Status, sample func(float64, ...string)) {
		for engine, t := range s.Traffic {
			sample(float64(t.Up), engine, "up")
			sample(float64(t.Down), engine, "down")
		}
	})
	m.one("clients_online", "Pairs of client and address that Core was told are online.", gauge, func(s agent.Status) float64 { return float64(s.Online) })
	m.add("outbox_batches", "Batches that wait for Core.", gauge, []string{"kind"}, func(s agent.Status, sample func(float64, ...string)) {
		for _, kind := range store.Kinds {
			sample(float64(s.Outbox.Batches[kind]), string(kind))
		}
	})
	m.one("outbox_batches_aside", "Batches that Core refused for good.", gauge, func(s agent.Status) float64 { return float64(s.Outbox.Aside) })
	m.one("state_damaged_values_total", "Values of the state file that were ever found damaged.", counter, func(s agent.Status) float64 { return float64(s.Outbox.DamagedEver) })
	m.moment("outbox_oldest_timestamp_seconds", "When the oldest waiting batch was made; absent where none waits.", func(s agent.Status) time.Time { return s.Outbox.Oldest })
	m.one("state_used_bytes", "How much of the state file is in use.", gauge, func(s agent.Status) float64 { return float64(s.Outbox.UsedBytes) })
}

func (m *metrics) addXray() {
	m.one("xray_up", "1 where the worker runs.", gauge, func(s agent.Status) float64 { return truth(s.Engines.Xray.State == "running") })
	m.one("xray_restarts_total", "Workers that ended or were replaced, since the daemon started.", counter, func(s agent.Status) float64 { return float64(s.Engines.Xray.Restarts) })
	m.one("xray_draining_workers", "Old workers that still serve streams.", gauge, func(s agent.Status) float64 { return float64(s.Engines.Xray.Draining) })
	m.one("xray_streams", "Open proxied streams.", gauge, func(s agent.Status) float64 { return float64(s.Engines.Xray.Streams) })
	m.one("xray_goroutines", "Goroutines of the worker.", gauge, func(s agent.Status) float64 { return float64(s.Engines.Xray.Goroutines) })
	m.add("xray_refused_streams_total", "Streams that were refused, since the worker started.", counter, []string{"reason"}, func(s agent.Status, sample func(float64, ...string)) {
		refused := s.Engines.Xray.Refused
		sample(float64(refused.Connections), "connection_limit")
		sample(float64(refused.Addresses), "address_limit")
		sample(float64(refused.Grants), "grant")
		sample(float64(refused.Strangers), "stranger")
		sample(float64(refused.Node), "node_address")
	})
	m.add("xray_refused_connections_total", "Connections that ended before they asked for anything, with garbage or wrong credentials, since the worker started.", counter, []string{"tag"}, func(s agent.Status, sample func(float64, ...string)) {
		for tag, count := range s.Engines.Xray.RefusedConnections {
			sample(float64(count), tag)
		}
	})
	m.one("xray_held_back_seconds_total", "How long streams waited for their clients' rates, all together, since the worker started.", counter, func(s agent.Status) float64 { return s.Engines.Xray.HeldBack })
	m.add("xray_inbound_up", "1 where the inbound runs.", gauge, []string{"tag", "protocol"}, func(s agent.Status, sample func(float64, ...string)) {
		for _, in := range s.Engines.Xray.Inbounds {
			sample(truth(in.State == "running"), in.Tag, in.Protocol)
		}
	})
}

func (m *metrics) addMTProto() {
	m.add("mtproto_inbound_state", "1 for the state that the inbound is in.", gauge, []string{"tag", "state"}, func(s agent.Status, sample func(float64, ...string)) {
		for _, in := range s.Engines.MTProto.Inbounds {
			for _, state := range []telemt.State{telemt.StateStarting, telemt.StateReady, telemt.StateDegraded, telemt.StateFailed} {
				sample(truth(in.State == state), in.Tag, string(state))
			}
		}
	})
	m.add("mtproto_restarts_total", "How often the inbound's telemt ended by itself.", counter, []string{"tag"}, func(s agent.Status, sample func(float64, ...string)) {
		for _, in := range s.Engines.MTProto.Inbounds {
			sample(float64(in.Restarts), in.Tag)
		}
	})
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, one := range m.all {
		to <- one.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	s, err := m.status()
	if err != nil {
		to <- prometheus.NewInvalidMetric(m.all[0].desc, err)
		return
	}
	for _, one := range m.all {
		one.read(s, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(one.desc, one.kind, value, labels...)
		})
	}
}

func (m *metrics) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// serveMetrics answers Prometheus at the address; empty for nowhere. Where it
// can't listen, clients are served all the same.
func serveMetrics(address string, m *metrics, log *slog.Logger) (stop func()) {
	if address == "" {
		return func() {}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Error("no metrics; mend metrics.listen and start node-agent again", logkey.Error, err)
		return func() {}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.handler())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: statusTimeout, ReadTimeout: statusTimeout, WriteTimeout: metricsTimeout, IdleTimeout: metricsTimeout, MaxHeaderBytes: metricsHeader}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics ended", logkey.Error, err)
		}
	}()
	return func() { _ = server.Close() }
}
