package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"nodeagent/coreclient/wire"
)

// scrape reads the metrics as Prometheus does.
func scrape(address string) (text string, families map[string]*dto.MetricFamily, err error) {
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return "", nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("metrics: %s: %w: %s", response.Status, err, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err = parser.TextToMetricFamilies(strings.NewReader(string(body)))
	return string(body), families, err
}

// valueOf returns the sample with the label values, in the order of the labels' names.
func valueOf(families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	for _, m := range families[name].GetMetric() {
		var values []string
		for _, l := range m.GetLabel() {
			values = append(values, l.GetValue())
		}
		if slices.Equal(values, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return -1
}

// The metrics have what limits refused, what clients moved and how the node is. They name no
// client.
func TestMetrics(t *testing.T) {
	t.Parallel()
	port, err := FreePort()
	must(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	w := newScriptedWorld(t, quickConfig+fmt.Sprintf("[metrics]\nlisten = %q\n", address))
	const uuid = "11111111-1111-4111-8111-111111111111"
	inboundPort, err := FreePort()
	must(t, err)
	w.serve(map[string]wire.ClientRef{uuid: {UserID: 1}}, map[string]any{"inbounds": []any{map[string]any{
		"tag": "in-1", "listen": "127.0.0.1", "port": inboundPort, "protocol": "vless", "settings": map[string]any{
			"decryption": "none",
			"clients":    []any{map[string]any{"id": uuid, "limitConnections": 1, "rateDownBitsPerSecond": 8_000_000}},
		},
	}}})
	target := w.target()
	client := w.client(map[string]any{"protocol": "vless", "settings": vnext(inboundPort, map[string]any{"id": uuid, "encryption": "none"})})
	open := w.dial(client, target)
	must(t, Exchange(open, 1000, 200_000)) // more than the rate lets through at once
	if err := client.Exchange(target.Addr(), 1, 1); err == nil {
		t.Error("a second connection was let in")
	}
	moved := target.Traffic()
	must(t, Eventually(t.Context(), func() error {
		text, families, err := scrape(address)
		if err != nil {
			return err
		}
		if strings.Contains(text, uuid) {
			t.Fatalf("the metrics name a client:\n%s", text)
		}
		for _, want := range []struct {
			name   string
			labels []string
			value  float64
		}{
			{"node_agent_xray_refused_streams_total", []string{"connection_limit"}, 1},
			{"node_agent_client_bytes_total", []string{"up", "xray"}, float64(moved.Up)},
			{"node_agent_client_bytes_total", []string{"down", "xray"}, float64(moved.Down)},
			{"node_agent_revision", []string{"running"}, 1},
			{"node_agent_xray_up", nil, 1},
			{"node_agent_xray_inbound_up", []string{"vless", "in-1"}, 1},
			{"node_agent_xray_streams", nil, 1},
		} {
			if got := valueOf(families, want.name, want.labels...); got != want.value {
				return fmt.Errorf("%s%q is %v, want %v", want.name, want.labels, got, want.value)
			}
		}
		if held := valueOf(families, "node_agent_xray_held_back_seconds_total"); held <= 0 {
			return fmt.Errorf("streams were held back for %v s", held)
		}
		return nil
	}))
	text, err := w.agent.StatusText(t.Context())
	must(t, err)
	if !strings.Contains(text, "1 at a connection limit") || !strings.Contains(text, "held back") {
		t.Errorf("status does not tell of the limits:\n%s", text)
	}
}

// An address that cannot be bound costs only the metrics.
func TestMetricsPortIsTaken(t *testing.T) {
	t.Parallel()
	target, err := NewTarget()
	must(t, err)
	defer target.Close()
	w := newScriptedWorld(t, quickConfig+fmt.Sprintf("[metrics]\nlisten = %q\n", target.Addr()))
	w.serve(nil, map[string]any{"inbounds": []any{}})
	if !strings.Contains(w.agent.Log(), "mend metrics.listen") {
		t.Error("the log does not say what to do")
	}
}
