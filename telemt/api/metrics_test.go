package api

import (
	"strings"
	"testing"
	"time"
)

// The names of counters are accepted with and without _total.
func TestParseMetrics(t *testing.T) {
	const text = `# HELP telemt_uptime_seconds Uptime
# TYPE telemt_uptime_seconds gauge
telemt_uptime_seconds 12.5
# TYPE telemt_user_octets_from_client counter
telemt_user_octets_from_client{user="a"} 100
telemt_user_octets_from_client{user="b"} 9007199254740993
# TYPE telemt_user_octets_to_client counter
telemt_user_octets_to_client{user="a"} 200
# TYPE telemt_telemetry_user_series_users gauge
telemt_telemetry_user_series_users{family="stats",status="suppressed"} 3
telemt_telemetry_user_series_users{family="unique_ip",status="suppressed"} 9
`
	later := strings.NewReplacer("from_client", "from_client_total", "to_client", "to_client_total").Replace(text)
	for name, text := range map[string]string{"3.4": text, "3.5": later} {
		t.Run(name, func(t *testing.T) {
			s, err := parseMetrics(strings.NewReader(text), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if s.Uptime != 12500*time.Millisecond || s.Users["a"] != (Octets{100, 200}) || s.Suppressed != 3 || len(s.Users) != 2 {
				t.Errorf("read %+v", s)
			}
		})
	}
	if _, err := parseMetrics(strings.NewReader("<html>"), time.Now()); err == nil {
		t.Error("a page that has no metrics was accepted")
	}
}

func FuzzParseMetrics(f *testing.F) {
	f.Add("telemt_uptime_seconds 1\ntelemt_user_octets_from_client{user=\"a\"} 1\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseMetrics(strings.NewReader(text), time.Now()) })
}
