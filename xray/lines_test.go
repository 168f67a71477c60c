package xray_test

import (
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"nodeagent/xray/state"
)

// xray-core's words about a feature that it will drop are logged once, for any number of changes and
// workers that use the feature, and not as a warning.
func TestDeprecationsAreToldOnce(t *testing.T) {
	r := newRig(t)
	websocket := func(path string) state.State {
		return r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless",
			"settings":{"decryption":"none"},"streamSettings":{"network":"ws","wsSettings":{"path":%q}}}]}`, r.port, path))
	}
	for _, path := range []string{"/one", "/two", "/three"} {
		r.apply(websocket(path))
	}
	first := r.engine.Status().PID
	sendSignal(t, first, syscall.SIGKILL)
	r.replaced(first, patience)
	r.within(patience, "the inbound is back", func() bool {
		inbounds := r.engine.Status().Inbounds
		return len(inbounds) == 1 && inbounds[0].State == "running"
	})
	r.apply(websocket("/four"))
	told := r.log.records(t, "xray-core will drop something that the configuration uses")
	if len(told) != 1 || told[0][slog.LevelKey] != "INFO" || !strings.Contains(fmt.Sprint(told[0]["line"]), "WebSocket") {
		t.Errorf("told %v, want it once", told)
	}
	for _, record := range r.log.records(t, "worker says") {
		if strings.Contains(fmt.Sprint(record["line"]), "deprecated") {
			t.Errorf("a warning says %v", record["line"])
		}
	}
}
