package state_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

func TestBindings(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"raw":                  {`{"port":443}`, []string{"0.0.0.0:443/tcp"}},
		"an address, a range":  {`{"listen":"[::1]","port":"443-444"}`, []string{"[::1]:443/tcp", "[::1]:444/tcp"}},
		"a unix socket":        {`{"listen":"/run//x.sock,0666"}`, []string{"unix:/run/x.sock"}},
		"an abstract socket":   {`{"listen":"@x,y"}`, []string{"unix:@x,y"}},
		"mKCP":                 {`{"port":443,"streamSettings":{"network":"kcp"}}`, []string{"0.0.0.0:443/udp"}},
		"XHTTP":                {`{"port":443,"streamSettings":{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3","h2"]}}}`, []string{"0.0.0.0:443/tcp"}},
		"XHTTP over QUIC":      {`{"port":443,"streamSettings":{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3"]}}}`, []string{"0.0.0.0:443/udp"}},
		"its other name":       {`{"port":443,"streamSettings":{"network":"splithttp","security":"tls","tlsSettings":{"alpn":"h3"}}}`, []string{"0.0.0.0:443/udp"}},
		"QUIC has to have TLS": {`{"port":443,"streamSettings":{"network":"xhttp","tlsSettings":{"alpn":["h3"]}}}`, []string{"0.0.0.0:443/tcp"}},
	} {
		t.Run(name, func(t *testing.T) {
			bindings, err := state.Inbound{Tag: "in-1", Protocol: "vless", Config: json.RawMessage(c.config)}.Bindings()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range bindings {
				got = append(got, b.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Without settings.network, and with null, the inbound listens on TCP, as in Xray.
func TestChosenNetworks(t *testing.T) {
	for network, want := range map[string]string{
		`null`: "0.0.0.0:443/tcp", `"UDP"`: "0.0.0.0:443/udp", `["tcp","udp"]`: "0.0.0.0:443/tcp 0.0.0.0:443/udp", `"tcp,udp"`: "0.0.0.0:443/tcp 0.0.0.0:443/udp", `"tcp, udp"`: "0.0.0.0:443/tcp", `[]`: "",
	} {
		for _, protocol := range []string{"shadowsocks", "dokodemo-door", "tunnel"} {
			bindings, err := state.Inbound{Tag: "in-1", Protocol: protocol, Config: json.RawMessage(`{"port":443,"settings":{"network":` + network + `}}`)}.Bindings()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range bindings {
				got = append(got, b.String())
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s on %s: got %v, want %s", protocol, network, got, want)
			}
		}
	}
}

// A new SOCKS inbound with UDP on the UDP port of another inbound is refused.
func TestPortOfSOCKS(t *testing.T) {
	s, err := parse.Service(json.RawMessage(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"socks","settings":{"udp":true}},{"tag":"in-2","port":1,"protocol":"hysteria","settings":{"version":2}}]}`), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if err := state.CheckPorts(state.State{}, s, true); err == nil {
		t.Error("two inbounds on one port are accepted")
	}
}

// Inbounds that collide already, and those whose bindings could never be read, refuse no change
// of another inbound, nor of their accounts. Every inbound that newly collides is named.
func TestCheckPortsLooksAtChanges(t *testing.T) {
	parsed := func(inbounds ...string) state.State {
		r, err := parse.Parts(json.RawMessage(`{"inbounds":[`+strings.Join(inbounds, ",")+`]}`), func(string) bool { return true })
		if err != nil || len(r.Refused) > 0 {
			t.Fatal(err, r.Refused)
		}
		return r.State
	}
	const (
		a, b    = `{"tag":"a-1","port":443,"protocol":"vless"}`, `{"tag":"b-2","port":443,"protocol":"vless"}`
		nowhere = `{"tag":"d-4","port":444,"listen":"here","protocol":"vless"}`
	)
	c := func(port string) string { return `{"tag":"c-3","port":` + port + `,"protocol":"vless"}` }
	socks := func(tag, user string) string {
		return `{"tag":"` + tag + `","port":80,"protocol":"socks","settings":{"udp":true,"auth":"password","accounts":[{"user":"` + user + `","pass":"p"}]}}`
	}
	for name, test := range map[string]struct {
		from, to state.State
		refused  []string // the tags, each once
	}{
		"a port of its own beside two that collide":      {parsed(a, b), parsed(a, b, c("1")), nil},
		"beside one whose address is wrong":              {parsed(a, nowhere), parsed(a, c("1"), nowhere), nil},
		"an account of one of two that collide":          {parsed(socks("s-1", "u"), socks("s-2", "u")), parsed(socks("s-1", "u"), socks("s-2", "v")), nil},
		"the port that the two have":                     {parsed(a, b), parsed(a, b, c("443")), []string{"c-3"}},
		"two collide that did not":                       {parsed(a, c("1")), parsed(a, c("443")), []string{"c-3"}},
		"each that collides is named":                    {state.State{}, parsed(a, b, c("443")), []string{"b-2", "c-3"}},
		"an address that is wrong":                       {parsed(a), parsed(a, nowhere), []string{"d-4"}},
		"one that is refused takes no port of another's": {parsed(a), parsed(a, `{"tag":"b-2","port":"443,80","protocol":"vless"}`, c("80")), []string{"b-2"}},
	} {
		var refused []string
		for _, f := range fault.All(state.CheckPorts(test.from, test.to, true)) {
			refused = append(refused, f.Tag)
		}
		if !slices.Equal(refused, test.refused) {
			t.Errorf("%s: refused are %q, want %q", name, refused, test.refused)
		}
	}
}

// An inbound without settings has no account to remove.
func TestWithoutSettings(t *testing.T) {
	in := state.Inbound{Tag: "in-1", Protocol: "socks", Config: json.RawMessage(`{"port":1,"protocol":"socks","tag":"in-1"}`)}
	out, err := in.Without(func(*state.Client) bool { return true })
	if err != nil || string(out.Config) != string(in.Config) {
		t.Errorf("got %s, %v", out.Config, err)
	}
}
