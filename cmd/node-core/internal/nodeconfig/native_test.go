package nodeconfig

import (
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// Null settings, capitals, a port as text and the flow "none" mean what they mean to Xray.
func TestInboundLeniency(t *testing.T) {
	p, err := addInbound(InboundFlags{Flow: "none"}, `{"protocol":"VLESS","port":"443","settings":null}`)
	if err != nil {
		t.Fatal(err)
	}
	if p.Protocol != "vless" || p.Port != 443 || p.Link.Flow != "" {
		t.Errorf("got %+v", p)
	}
	if p, err := addInbound(InboundFlags{Flow: vision}, `{"protocol":"vless","port":443,"streamSettings":{"security":"TLS"}}`); err != nil || p.Link.Flow != vision {
		t.Errorf("flow %q over TLS in capitals: %v", p.Link.Flow, err)
	}
	sub := corestore.Subscription{ID: 1, UserID: 1, UUID: "u", Enabled: true}
	p.Enabled = true
	config, err := Build(corestore.NodeRows{Node: corestore.Node{NodeTerms: coreapi.NodeTerms{Enabled: true}}, Protocols: []corestore.Protocol{p}, Subscriptions: []corestore.Subscription{sub}, Reach: corestore.Everywhere(0)})
	if err != nil || !strings.Contains(string(config.Services.Xray), `"clients":[{"email":"u","id":"u"}]`) || !strings.Contains(string(config.Services.Xray), `"protocol":"vless"`) {
		t.Errorf("services.xray is %s, %v", config.Services.Xray, err)
	}
}
