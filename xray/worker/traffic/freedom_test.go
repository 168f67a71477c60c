package traffic

import (
	"encoding/json"
	"testing"

	"github.com/xtls/xray-core/infra/conf"
)

// An outbound is plain where its configuration says nothing of its connections.
func TestIsPlain(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: true,
		`{"settings": {"domainStrategy": "UseIP"}}`:                    true,
		`{"targetStrategy": "UseIPv4"}`:                                true,
		`{"sendThrough": "192.0.2.1"}`:                                 false,
		`{"sendThrough": "origin"}`:                                    false,
		`{"proxySettings": {"tag": "b"}}`:                              false,
		`{"mux": {"enabled": true}}`:                                   false,
		`{"streamSettings": {"sockopt": {"mark": 1}}}`:                 false,
		`{"streamSettings": {"sockopt": {"dialerProxy": "b"}}}`:        false,
		`{"streamSettings": {"sockopt": {"domainStrategy": "UseIP"}}}`: false,
		`{"streamSettings": {"security": "tls"}}`:                      false,
		`{"streamSettings": {"network": "ws"}}`:                        false,
		`{"streamSettings": {"finalmask": {"tcp": [{"type": "fragment", "settings": {"packets": "tlshello", "length": "1-2", "delay": "0"}}]}}}`: false,
	} {
		detour := conf.OutboundDetourConfig{Protocol: "freedom", Tag: "a"}
		if err := json.Unmarshal([]byte(text), &detour); err != nil {
			t.Fatal(err)
		}
		config, err := detour.Build()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := isPlain(config.SenderSettings); got != want {
			t.Errorf("%s: plain %t", text, got)
		}
	}
	if isPlain(nil) {
		t.Error("nothing is known, and it is plain")
	}
}
