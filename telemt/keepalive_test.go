package telemt

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// telemt notices a client that vanishes without a FIN: the connections that it accepts have TCP
// keepalive.
func TestAcceptedConnectionsHaveKeepAlive(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		r.exchange(r.dial(port, "alice"), 10, 10)
		r.eventually("the connection that telemt accepted has keepalive", func() bool {
			text, err := os.ReadFile("/proc/net/tcp")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				// Local address, remote address, state 1 (established), queues, and a timer of
				// kind 2 (keepalive), as get_tcp4_sock in net/ipv4/tcp_ipv4.c prints them.
				fields := strings.Fields(line)
				if len(fields) > 5 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && fields[3] == "01" && strings.HasPrefix(fields[5], "02:") {
					return true
				}
			}
			return false
		})
	})
}
