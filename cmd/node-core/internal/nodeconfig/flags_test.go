package nodeconfig

import (
	"encoding/json"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
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
	vless := InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443, Security: "none"}
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

// VLESS is REALITY with Vision unless something else is said, or a proxy of the host is before it.
func TestVLESSIsSafe(t *testing.T) {
	for name, c := range map[string]struct {
		flags          InboundFlags
		security, flow string
	}{
		"nothing said":           {InboundFlags{Listen: "0.0.0.0"}, "reality", vision},
		"no flow":                {InboundFlags{Listen: "0.0.0.0", Flow: "none"}, "reality", ""},
		"REALITY, and no more":   {InboundFlags{Listen: "0.0.0.0", Security: "reality"}, "reality", ""},
		"none":                   {InboundFlags{Listen: "0.0.0.0", Security: "none"}, "none", ""},
		"on loopback":            {InboundFlags{Listen: "127.0.0.1"}, "none", ""},
		"on loopback of IPv6":    {InboundFlags{Listen: "::1"}, "none", ""},
		"REALITY on loopback":    {InboundFlags{Listen: "127.0.0.1", Security: "reality"}, "reality", ""},
		"on one address of many": {InboundFlags{Listen: "192.0.2.1"}, "reality", vision},
	} {
		c.flags.Protocol, c.flags.Port = "vless", 443
		p, err := addInbound(c.flags, "")
		if err != nil || security(p) != c.security || p.Link.Flow != c.flow {
			t.Errorf("%s: security %s, flow %q, %v", name, security(p), p.Link.Flow, err)
		}
	}
}

// An override changes what it names, and refuses what would have no effect.
func TestOverrides(t *testing.T) {
	reality := InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443, SNI: "a.example"}
	tls := InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443, Security: "tls", SNI: "a.example", CertFile: "c", KeyFile: "k"}
	none := InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443, Security: "none"}
	telegram := InboundFlags{Protocol: mtproto, Listen: "0.0.0.0", Port: 443, Secure: true}
	for name, c := range map[string]struct {
		flags InboundFlags
		own   coreapi.Overrides
		has   []string // in the object or the link hints
		says  string   // the error
	}{
		"listen and port":           {reality, coreapi.Overrides{Listen: "192.0.2.1", Port: 8443}, []string{`"listen":"192.0.2.1"`, `"port":8443`, `"dest":"a.example:443"`}, ""},
		"another name":              {reality, coreapi.Overrides{SNI: "b.example"}, []string{`"dest":"b.example:443"`, `"serverNames":["b.example"]`, `"sni":"b.example"`}, ""},
		"another site":              {reality, coreapi.Overrides{SNI: "b.example", Dest: "c.example:8443"}, []string{`"dest":"c.example:8443"`, `"serverNames":["b.example"]`}, ""},
		"no flow":                   {reality, coreapi.Overrides{Flow: "none"}, []string{`"sni":"a.example"}`}, ""},
		"a host in links":           {reality, coreapi.Overrides{PublicHost: "vpn.example"}, []string{`"publicHost":"vpn.example"`}, ""},
		"a certificate":             {tls, coreapi.Overrides{CertFile: "/c2", KeyFile: "/k2"}, []string{`"certificateFile":"/c2"`, `"keyFile":"/k2"`}, ""},
		"a host of MTProto":         {telegram, coreapi.Overrides{PublicHost: "vpn.example", Port: 444}, []string{`"publicHost":"vpn.example"`, `"port":444`}, ""},
		"half a certificate":        {tls, coreapi.Overrides{CertFile: "/c2"}, nil, "both"},
		"a site of TLS":             {tls, coreapi.Overrides{Dest: "b.example:443"}, nil, "only REALITY"},
		"a certificate for REALITY": {reality, coreapi.Overrides{CertFile: "/c2", KeyFile: "/k2"}, nil, "no certificate"},
		"a name without TLS":        {none, coreapi.Overrides{SNI: "b.example"}, nil, "neither TLS nor REALITY"},
		"a flow without TLS":        {none, coreapi.Overrides{Flow: vision}, nil, "needs security"},
		"a name for MTProto":        {telegram, coreapi.Overrides{SNI: "b.example"}, nil, "mtproto"},
		"a port of none":            {reality, coreapi.Overrides{Port: 70000}, nil, "out of range"},
		"an address of none":        {reality, coreapi.Overrides{Listen: "fra1"}, nil, "not an IP address"},
		"a host that is a URL":      {reality, coreapi.Overrides{PublicHost: "https://a.example"}, nil, "neither a host name"},
	} {
		p, err := addInbound(c.flags, "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := Override(p, c.own)
		if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error that says %q", name, err, c.says)
			continue
		}
		link, _ := json.Marshal(got.Link)
		for _, text := range c.has {
			if all := string(got.Config) + string(link); !strings.Contains(all, text) {
				t.Errorf("%s: %s lacks %s", name, all, text)
			}
		}
		if err == nil {
			if err := Check(corestore.Node{}, got); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Rotation changes keys, and nothing else.
func TestKeysAreRotated(t *testing.T) {
	p, err := addInbound(InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443}, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Rotate(p)
	if err != nil {
		t.Fatal(err)
	}
	before, after := Summarize(p), Summarize(got)
	if before.PublicKey == after.PublicKey || before.ShortIDs[0] == after.ShortIDs[0] || before.Borrows != after.Borrows || got.Port != p.Port {
		t.Errorf("%+v became %+v", before, after)
	}
	if _, err := Rotate(corestore.Protocol{Protocol: mtproto, Config: []byte(`{}`)}); err == nil {
		t.Error("keys of an MTProto inbound were rotated")
	}
}
