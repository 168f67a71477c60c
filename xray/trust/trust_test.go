package trust

import (
	"testing"

	"nodeagent/xray/state"
)

func TestIsLocal(t *testing.T) {
	for listen, local := range map[string]bool{
		"": false, "0.0.0.0": false, "::": false, "192.0.2.1": false, "127.0.0.1.example": false,
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "[::1]": true, "::ffff:127.0.0.1": true, "localhost": true, "/run/x.sock,0666": true, "@name": true,
	} {
		if OnLoopback(listen) != local {
			t.Errorf("%q is local: %v, want %v", listen, !local, local)
		}
	}
	for more, local := range map[string]bool{
		`"streamSettings":{"sockopt":{"tproxy":"off"}}`:    true,
		`"streamSettings":{"sockopt":{"tproxy":"TProxy"}}`: false,
		`"settings":{"followRedirect":true}`:               false,
	} {
		in := state.Inbound{Protocol: "tunnel", Config: []byte(`{"listen":"127.0.0.1",` + more + `}`)}
		if isLocal(in) != local {
			t.Errorf("%s is local: %v, want %v", more, !local, local)
		}
	}
}
