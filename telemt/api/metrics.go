package api

import (
	"errors"
	"fmt"
	"io"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Octets are the bytes of payload that a user has moved.
type Octets struct {
	Up, Down uint64 // from the client, to the client
}

// Sample is what one reading of telemt's metrics gave.
type Sample struct {
	At     time.Time         // when the request was sent
	Uptime time.Duration     // of telemt's generation, in steps of 0.1 s
	Users  map[string]Octets // by user name, since that generation started
	// Suppressed is the number of users that are missing, because telemt's metrics have
	// at most 4,096.
	Suppressed int
}

// The metric families that are read. Since release 3.5 the names of counters end in
// _total.
const (
	familyUptime = "telemt_uptime_seconds"
	familyUp     = "telemt_user_octets_from_client"
	familyDown   = "telemt_user_octets_to_client"
	familySeries = "telemt_telemetry_user_series_users"
	totalSuffix  = "_total"
)

// parseMetrics reads metrics in Prometheus' text format. at is the time at which they
// were requested.
func parseMetrics(text io.Reader, at time.Time) (Sample, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return Sample{}, fmt.Errorf("read telemt's metrics: %w", err)
	}
	uptime := families[familyUptime].GetMetric()
	if len(uptime) != 1 {
		return Sample{}, errors.New("read telemt's metrics: " + familyUptime + " is missing or there more than once")
	}
	s := Sample{At: at, Uptime: time.Duration(value(uptime[0]) * float64(time.Second)), Users: map[string]Octets{}}
	for name, put := range map[string]func(*Octets, uint64){
		familyUp:   func(o *Octets, n uint64) { o.Up = n },
		familyDown: func(o *Octets, n uint64) { o.Down = n },
	} {
		family := families[name]
		if family == nil {
			family = families[name+totalSuffix]
		}
		for _, metric := range family.GetMetric() {
			user := label(metric, "user")
			o := s.Users[user]
			put(&o, uint64(value(metric)))
			s.Users[user] = o
		}
	}
	for _, metric := range families[familySeries].GetMetric() {
		if label(metric, "family") == "stats" && label(metric, "status") == "suppressed" {
			s.Suppressed = int(value(metric))
		}
	}
	return s, nil
}

// value returns the metric's value. A metric without a declared type is untyped.
func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return m.Untyped.GetValue()
}

// label returns the value of the metric's label, or "" if it has no such label.
func label(m *dto.Metric, name string) string {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}
