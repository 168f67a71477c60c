package nodeconfig

import (
	"encoding/json"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

// add is what protocolAdd does with an inbound.
func addInbound(w Wish, native string) (corestore.Protocol, error) {
	p := corestore.Protocol{ID: 7, Tag: "in-7", Protocol: w.Protocol, Listen: w.Listen, Port: w.Port}
	var err error
	if native != "" {
		err = FromNative(json.RawMessage(native), w, &p)
	} else {
		err = FromWish(w, &p)
	}
	if err == nil {
		err = Check(corestore.Node{Name: "fra1"}, p)
	}
	return p, err
}

// A wish that could not become what it says is refused with the reason.
func TestInboundRefusals(t *testing.T) {
	vless := Wish{Protocol: "vless", Listen: "0.0.0.0", Port: 443}
	with := func(w Wish, change func(*Wish)) Wish { change(&w); return w }
	for name, c := range map[string]struct {
		wish   Wish
		native string
		says   string
	}{
		"a certificate without TLS":     {with(vless, func(w *Wish) { w.CertFile, w.KeyFile = "c", "k" }), "", "security none"},
		"a name without TLS":            {with(vless, func(w *Wish) { w.SNI = "a.example" }), "", "--sni"},
		"MTProto's flags for VLESS":     {with(vless, func(w *Wish) { w.Secure = true }), "", "--secure"},
		"VLESS's flags for MTProto":     {Wish{Protocol: mtproto, Listen: "0.0.0.0", Port: 443, Secure: true, Security: "tls"}, "", "--security"},
		"security for a native inbound": {Wish{Security: "reality"}, `{"protocol":"vless","port":443}`, "--security"},
		"a flow without TLS":            {with(vless, func(w *Wish) { w.Flow = vision }), "", "needs security tls or reality"},
		"a flow of no name":             {with(vless, func(w *Wish) { w.Flow = "xtls-rprx-direct" }), "", "xtls-rprx-direct"},
		"settings of no kind":           {Wish{}, `{"protocol":"vless","port":443,"settings":"x"}`, "settings"},
		"a REALITY key that is none": {Wish{}, `{"protocol":"vless","port":443,"streamSettings":{"security":"reality",
			"realitySettings":{"privateKey":"short"}}}`, "privateKey"},
		"an MTProto member of no name": {Wish{Protocol: mtproto}, `{"port":443,"modes":{"tls":true},"tlsDomain":"a.example"}`, "tlsDomain"},
		"a TLS domain that is a URL":   {Wish{Protocol: mtproto, Listen: "0.0.0.0", Port: 443, TLSDomains: []string{"http://a.example/"}}, "", "http://a.example/"},
		"two protocols":                {Wish{Protocol: "vless"}, `{"protocol":"vmess","port":443}`, "vmess"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := addInbound(c.wish, c.native); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}
