package xray

import (
	"encoding/json"
	"slices"
	"testing"
)

// What listens on UDP does not collide with what listens on TCP.
func TestBindings(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"raw":                  {`{"port":443}`, []string{"0.0.0.0:443/tcp"}},
		"an address, a range":  {`{"listen":"[::1]","port":"443-444"}`, []string{"[::1]:443/tcp", "[::1]:444/tcp"}},
		"a unix socket":        {`{"listen":"/run/x.sock"}`, nil},
		"mKCP":                 {`{"port":443,"streamSettings":{"network":"kcp"}}`, []string{"0.0.0.0:443/udp"}},
		"XHTTP":                {`{"port":443,"streamSettings":{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3","h2"]}}}`, []string{"0.0.0.0:443/tcp"}},
		"XHTTP over QUIC":      {`{"port":443,"streamSettings":{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3"]}}}`, []string{"0.0.0.0:443/udp"}},
		"its other name":       {`{"port":443,"streamSettings":{"network":"splithttp","security":"tls","tlsSettings":{"alpn":"h3"}}}`, []string{"0.0.0.0:443/udp"}},
		"QUIC has to have TLS": {`{"port":443,"streamSettings":{"network":"xhttp","tlsSettings":{"alpn":["h3"]}}}`, []string{"0.0.0.0:443/tcp"}},
	} {
		t.Run(name, func(t *testing.T) {
			bindings, err := Inbound{Tag: "in-1", Protocol: "vless", Config: json.RawMessage(c.config)}.Bindings()
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
