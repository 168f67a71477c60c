package wireguard

import (
	"testing"

	"github.com/xtls/xray-core/common/buf"
	"golang.zx2c4.com/wireguard/conn"
)

// A burst of a client waits for the device, which gets it in its order.
func TestBindKeepsTheOrder(t *testing.T) {
	b := newBind(func(byte, *endpoint) {}, func(byte, *endpoint) {})
	functions, _, err := b.Open(0)
	if err != nil || len(functions) != 1 {
		t.Fatalf("there are %d functions that receive, and the error %v: several mix up the order", len(functions), err)
	}
	for i := range queuedDatagrams {
		b.received(buf.FromBytes([]byte{byte(i)}), &endpoint{})
	}
	for i := range queuedDatagrams {
		got, sizes := [][]byte{make([]byte, 10)}, make([]int, 1)
		if n, err := functions[0](got, sizes, make([]conn.Endpoint, 1)); n != 1 || err != nil || sizes[0] != 1 || got[0][0] != byte(i) {
			t.Fatalf("datagram %d is %v, and the error %v", i, got[0][:sizes[0]], err)
		}
	}
}
