package wireguard

import (
	"testing"

	"github.com/xtls/xray-core/common/buf"
	"golang.zx2c4.com/wireguard/conn"
)

// A burst of clients waits for the device, which gets it in its order.
func TestBindKeepsTheOrder(t *testing.T) {
	b := newBind(func(byte, *endpoint) {}, func(byte, *endpoint) {})
	functions, _, err := b.Open(0)
	if err != nil || len(functions) != 1 {
		t.Fatalf("there are %d functions that receive, and the error %v: several mix up the order", len(functions), err)
	}
	sources := []*endpoint{{}, {}}
	const each = 33
	for i, from := range sources {
		var burst buf.MultiBuffer
		for n := range each {
			burst = append(burst, buf.FromBytes([]byte{byte(i), byte(n)}))
		}
		b.received(burst, from)
	}
	got, sizes, from := [][]byte{make([]byte, 10)}, make([]int, 1), make([]conn.Endpoint, 1)
	for count := range len(sources) * each {
		n, err := functions[0](got, sizes, from)
		if n != 1 || err != nil {
			t.Fatalf("after %d datagrams came %d, and the error %v", count, n, err)
		}
		source := count / each
		if sizes[0] != 2 || got[0][0] != byte(source) || got[0][1] != byte(count%each) || from[0] != sources[source] {
			t.Fatalf("datagram %d is %v of %p", count, got[0][:sizes[0]], from[0])
		}
	}
}
