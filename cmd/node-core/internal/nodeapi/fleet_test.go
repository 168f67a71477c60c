package nodeapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
)

// An inbound that a node's Xray is too old for is left out of its configuration, so that the
// node takes the rest. When the node comes back with another version, it is told at once that
// there is another configuration.
func TestInboundsThatANodeIsTooOldFor(t *testing.T) {
	c := newCore(t)
	for i, settings := range []string{`{"path":"/x"}`, `{"path":"/x","sessionIDTable":"ALPHABET"}`} {
		config := fmt.Sprintf(`{"protocol":"vless","port":%d,"settings":{"decryption":"none"},"streamSettings":{"network":"xhttp","xhttpSettings":%s}}`, 1000+i, settings)
		if _, err := c.store.AddProtocol(t.Context(), corestore.Protocol{NodeID: c.node, Protocol: "vless", Port: 1000 + i, Config: []byte(config)}); err != nil {
			t.Fatal(err)
		}
	}
	var running int64
	for _, step := range []struct {
		agent    string
		news     bool // Core tells the node to fetch
		inbounds int
	}{
		{"node-agent", true, 2}, // Core knows no version: the first configuration
		{"node-agent/1.0.0 (xray 26.3.27)", true, 1},
		{"node-agent/1.0.1 (xray 26.3.27, telemt 3.4.25)", false, 1}, // the same Xray
		{"node-agent/1.1.0 xray/26.7.28", true, 2},
		{"node-agent/1.1.0 xray/26.7.28 telemt/3.4.25", false, 2},
		{"node-agent/1.0.0 (xray 26.3.27)", true, 1}, // it went back
	} {
		header := map[string]string{"x-node-auth-key": c.key, "User-Agent": step.agent}
		var told wire.HeartbeatResponse
		c.want(http.StatusOK, c.send(http.MethodPost, wire.PathHeartbeat, header, fmt.Sprintf(`{"revision":%d}`, running)), &told)
		if told.NeedSync != step.news {
			t.Errorf("%s: needSync is %t", step.agent, told.NeedSync)
		}
		var config struct {
			Revision int64
			Services struct {
				Xray struct{ Inbounds []json.RawMessage }
			}
		}
		c.want(http.StatusOK, c.send(http.MethodGet, wire.PathConfig, header, ""), &config)
		if n := len(config.Services.Xray.Inbounds); n != step.inbounds {
			t.Errorf("%s: the node gets %d inbounds, want %d", step.agent, n, step.inbounds)
		}
		running = config.Revision
	}
}
