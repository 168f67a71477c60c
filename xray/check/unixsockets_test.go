package check

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// Xray accepts all these sockets. It makes only the last two.
func TestUnixSockets(t *testing.T) {
	for name, c := range map[string]struct{ protocol, listen, network, want string }{
		"no listener":   {"socks", "/run/x.sock", "", "socks does not listen on a unix socket"},
		"no mode":       {"vless", "/run/x.sock,rw", "", `the mode "rw" is not an octal number`},
		"the same path": {"vless", "/run//y.sock,0600", "ws", "both listen on the unix socket /run/y.sock"},
		"over UDP":      {"vless", "@x", "kcp", "kcp does not listen on a unix socket"},
		"good":          {"vless", "/run/x.sock,0600", "ws", ""},
		"abstract":      {"vless", "@/run/y.sock", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parse.Service(json.RawMessage(fmt.Sprintf(`{"inbounds":[
				{"tag":"in-1","listen":%q,"protocol":%q,"settings":{"decryption":"none"},"streamSettings":{"network":%q}},
				{"tag":"in-2","listen":"/run/y.sock","protocol":"vless","settings":{"decryption":"none"}}]}`, c.listen, c.protocol, c.network)), func(string) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			switch err := Changed(state.State{}, s, time.Now()); {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v", err)
			}
		})
	}
}
