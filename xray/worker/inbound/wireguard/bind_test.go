package wireguard

import (
	"testing"

	"github.com/xtls/xray-core/common/buf"
	"golang.zx2c4.com/wireguard/conn"
)

// A burst of clients waits for the device, which gets it in its order, as many datagrams at a time as it takes.
func TestBindKeepsTheOrder(t *testing.T) {
	b := newBind(func(byte, *endpoint) {}, func(byte, *endpoint) {})
	functions, _, err := b.Open(0)
	if err != nil || len(functions) != 1 {
		t.Fatalf("there are %d functions that receive, and the error %v: several mix up the order", len(functions), err)
	}
	sources := []*endpoint{{}, {}}
	const each = 2*together + 1
	for i, from := range sources {
		var burst buf.MultiBuffer
		for n := range each {
			burst = append(burst, buf.FromBytes([]byte{byte(i), byte(n)}))
		}
		b.received(burst, from)
	}
	got, sizes, from := make([][]byte, together), make([]int, together), make([]conn.Endpoint, together)
	for i := range got {
		got[i] = make([]byte, 10)
	}
	for count := 0; count < len(sources)*each; {
		n, err := functions[0](got, sizes, from)
		if n == 0 || err != nil || n < together && count+n < len(sources)*each {
			t.Fatalf("after %d datagrams came %d, and the error %v", count, n, err)
		}
		for i := range n {
			source := count / each
			if sizes[i] != 2 || got[i][0] != byte(source) || got[i][1] != byte(count%each) || from[i] != sources[source] {
				t.Fatalf("datagram %d is %v of %p", count, got[i][:sizes[i]], from[i])
			}
			count++
		}
	}
}
