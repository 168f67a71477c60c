package nodeconfig

import (
	"encoding/json"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

// addInbound does what adminapi does with a new inbound.
func addInbound(f InboundFlags, native string) (corestore.Protocol, error) {
	p := corestore.Protocol{ID: 7, Tag: "in-7", Protocol: f.Protocol, Listen: f.Listen, Port: f.Port}
	var err error
	if native != "" {
		err = FromNative(json.RawMessage(native), f, &p)
	} else {
		err = FromFlags(f, &p)
	}
	if err == nil {
		err = Check(corestore.Node{Name: "fra1"}, p)
	}
	return p, err
}

// Flags and inbounds of which Core could not make what they say are refused with the reason.
func TestInboundRefusals(t *testing.T) {
	vless := InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443}
	with := func(f InboundFlags, change func(*InboundFlags)) InboundFlags { change(&f); return f }
	for name, c := range map[string]struct {
		flags  InboundFlags
		native string
		says   string
	}{
		"a certificate without TLS":     {with(vless, func(f *InboundFlags) { f.CertFile, f.KeyFile = "c", "k" }), "", "security none"},
		"a name without TLS":            {with(vless, func(f *InboundFlags) { f.SNI = "a.example" }), "", "--sni"},
		"MTProto's flags for VLESS":     {with(vless, func(f *InboundFlags) { f.Secure = true }), "", "--secure"},
		"VLESS's flags for MTProto":     {InboundFlags{Protocol: mtproto, Listen: "0.0.0.0", Port: 443, Secure: true, Security: "tls"}, "", "--security"},
		"security for a native inbound": {InboundFlags{Security: "reality"}, `{"protocol":"vless","port":443}`, "--security"},
		"a flow without TLS":            {with(vless, func(f *InboundFlags) { f.Flow = vision }), "", "needs security tls or reality"},
		"a flow of no name":             {with(vless, func(f *InboundFlags) { f.Flow = "xtls-rprx-direct" }), "", "xtls-rprx-direct"},
		"settings of no kind":           {InboundFlags{}, `{"protocol":"vless","port":443,"settings":"x"}`, "settings"},
		"a REALITY key that is none": {InboundFlags{}, `{"protocol":"vless","port":443,"streamSettings":{"security":"reality",
			"realitySettings":{"privateKey":"short"}}}`, "privateKey"},
		"an MTProto member of no name": {InboundFlags{Protocol: mtproto}, `{"port":443,"modes":{"tls":true},"tlsDomain":"a.example"}`, "tlsDomain"},
		"a TLS domain that is a URL":   {InboundFlags{Protocol: mtproto, Listen: "0.0.0.0", Port: 443, TLSDomains: []string{"http://a.example/"}}, "", "http://a.example/"},
		"a port with a fraction":       {InboundFlags{}, `{"protocol":"vless","port":443.5}`, "443.5"},
		"two ports":                    {InboundFlags{}, `{"protocol":"vless","port":"443,444"}`, "443,444"},
		"no port":                      {InboundFlags{}, `{"protocol":"vless"}`, "port 0"},
		"two protocols":                {InboundFlags{Protocol: "vless"}, `{"protocol":"vmess","port":443}`, "vmess"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := addInbound(c.flags, c.native); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}
