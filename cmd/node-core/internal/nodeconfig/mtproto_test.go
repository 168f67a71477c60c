package nodeconfig

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/internal/telegram"
)

const secret = "0123456789abcdef0123456789abcdef"

// An MTProto inbound is part of services.mtproto and not of services.xray, with a secret for each
// enabled subscription.
func TestMTProtoService(t *testing.T) {
	p := corestore.Protocol{ID: 9, Tag: "mtproto-9", Protocol: mtproto, Listen: "0.0.0.0", Port: 8444}
	if err := FromFlags(InboundFlags{Protocol: mtproto, Listen: "0.0.0.0", Port: 8444, TLSDomains: []string{"one.example"}, Mask: "one.example:443"}, &p); err != nil {
		t.Fatal(err)
	}
	node := corestore.Node{Revision: 3, MTProto: []byte(`{"upstreams":[{"type":"direct"}],"advanced":{"general":{"log_level":"debug"}}}`)}
	subs := []corestore.Subscription{
		{ID: 1, UserID: 5, UUID: "u1", MTProtoSecret: secret, Enabled: true},
		{ID: 2, UserID: 6, UUID: "u2", MTProtoSecret: strings.Repeat("0", 32)},
	}
	node.Enabled, p.Enabled = true, true
	config, err := Build(corestore.NodeRows{Node: node, Protocols: []corestore.Protocol{p}, Subscriptions: subs, Reach: corestore.Everywhere(0)})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"inbounds":[{"nodeProtocolId":9,"tag":"mtproto-9","listen":"0.0.0.0","port":8444,` +
		`"modes":{"classic":false,"secure":false,"tls":true},"tlsDomains":["one.example"],"mask":{"host":"one.example","port":443},` +
		`"clients":[{"id":"u1","secret":"` + secret + `"}]}],"upstreams":[{"type":"direct"}],"advanced":{"general":{"log_level":"debug"}}}`
	if string(config.Services.MTProto) != want {
		t.Errorf("services.mtproto is\n%s, want\n%s", config.Services.MTProto, want)
	}
	var xray struct{ Inbounds []json.RawMessage }
	if err := json.Unmarshal(config.Services.Xray, &xray); err != nil || len(xray.Inbounds) != 0 {
		t.Errorf("services.xray is %s, %v", config.Services.Xray, err)
	}
}

func TestMTProtoLinks(t *testing.T) {
	sub := corestore.Subscription{MTProtoSecret: secret}
	const server, hexDomain = "port=8444&secret=", "6f6e652e6578616d706c65" // one.example
	for name, c := range map[string]struct {
		flags   InboundFlags
		host    string
		secrets []string
	}{
		"TLS":         {InboundFlags{TLSDomains: []string{"one.example"}}, "203.0.113.9", []string{"ee" + secret + hexDomain}},
		"all modes":   {InboundFlags{TLSDomains: []string{"one.example"}, Secure: true, Classic: true}, "203.0.113.9", []string{"ee" + secret + hexDomain, "dd" + secret, secret}},
		"public host": {InboundFlags{Secure: true, PublicHost: "proxy.example"}, "proxy.example", []string{"dd" + secret}},
	} {
		t.Run(name, func(t *testing.T) {
			p := corestore.Protocol{Protocol: mtproto, Listen: "0.0.0.0", Port: 8444}
			c.flags.Protocol, c.flags.Listen, c.flags.Port = mtproto, p.Listen, p.Port
			if err := FromFlags(c.flags, &p); err != nil {
				t.Fatal(err)
			}
			links, err := Links(corestore.Node{IP: "203.0.113.9"}, p, sub)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, s := range c.secrets {
				query := server + s + "&server=" + c.host
				want = append(want, "tg://proxy?"+query, "https://t.me/proxy?"+query)
			}
			if !slices.Equal(links, want) {
				t.Errorf("links %q, want %q", links, want)
			}
			for i, link := range links { // as TDLib reads them
				read, err := telegram.ParseLink(link)
				if err != nil || read.Address != c.host+":8444" || hex.EncodeToString(read.Secret) != secret {
					t.Errorf("%s is read as %+v, %v", link, read, err)
				}
				if s := c.secrets[i/2]; read.Padded != (s != secret) || (read.Domain == "one.example") != strings.HasPrefix(s, "ee") {
					t.Errorf("%s is read as %+v", link, read)
				}
			}
		})
	}
}

func TestMTProtoFlagsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		flags InboundFlags
		says  string
	}{
		"no way in":       {InboundFlags{}, "--tls-domain"},
		"a mask of words": {InboundFlags{Secure: true, Mask: "example"}, `"example"`},
		"a short ad tag":  {InboundFlags{Secure: true, AdTag: "00"}, "32 hex"},
		"a long domain":   {InboundFlags{TLSDomains: []string{strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + "." + strings.Repeat("c", 61)}}, "at most 182"},
	} {
		t.Run(name, func(t *testing.T) {
			c.flags.Protocol, c.flags.Listen, c.flags.Port = mtproto, "0.0.0.0", 1
			if err := FromFlags(c.flags, new(corestore.Protocol)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			}
		})
	}
}
