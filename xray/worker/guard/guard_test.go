package guard

import (
	"testing"

	"github.com/xtls/xray-core/proxy"
)

// closing counts how often it is closed.
type closing struct {
	proxy.Inbound
	closed int
}

func (c *closing) Close() error {
	c.closed++
	return nil
}

// xray-core closes a proxy several times; it ends once, and again after another start.
func TestAProxyIsClosedOnce(t *testing.T) {
	inner := &closing{}
	guard := wrapInbound(inner).(*wrapped)
	for start := 1; start <= 2; start++ {
		if err := guard.Start(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := guard.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if inner.closed != start {
			t.Errorf("after %d starts it was closed %d times", start, inner.closed)
		}
	}
}
