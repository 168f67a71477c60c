package traffic

import (
	"testing"

	"github.com/xtls/xray-core/common/net"
)

// An IPv4 client has the same address whether its socket is IPv4 or IPv6.
func TestSourceAddress(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1",
	} {
		got := SourceAddress(net.TCPDestination(net.ParseAddress(text), 443))
		if got.String() != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := SourceAddress(net.Destination{}); got.IsValid() {
		t.Errorf("no address: %s", got)
	}
}
