package listen

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apernet/quic-go"
)

// The handshakes of a listener are bounded: those of addresses that are not proven, those of one
// address, and all.
func TestHandshakes(t *testing.T) {
	var refused atomic.Int64
	_, h := QUIC(nil, nil, func() { refused.Add(1) })
	var ends []context.CancelFunc
	begin := func(address string, proven bool) error {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := h.begin(ctx, &quic.ClientInfo{RemoteAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)), AddrVerified: proven})
		if err != nil {
			cancel()
			return err
		}
		ends = append(ends, cancel)
		return nil
	}
	for i := range UnprovenHandshakes {
		if h.prove(nil) {
			t.Fatalf("with %d handshakes a client has to prove its address", i)
		}
		if err := begin("192.0.2.1:1", false); err != nil {
			t.Fatal(err)
		}
	}
	if !h.prove(nil) {
		t.Error("no client has to prove its address")
	}
	for i := range AddressHandshakes {
		// One host has all addresses of a network of 64 bits.
		if err := begin(fmt.Sprintf("[2001:db8::%x]:1", i+1), true); err != nil {
			t.Fatal(err)
		}
	}
	if begin("[2001:db8::ffff]:2", true) == nil {
		t.Error("one network has any number of handshakes")
	}
	if err := begin("[2001:db8:0:1::1]:1", true); err != nil {
		t.Errorf("another network: %v", err)
	}
	for i := h.all; i < MostHandshakes; i++ {
		if err := begin(fmt.Sprintf("10.0.%d.%d:1", i>>8, i&255), true); err != nil {
			t.Fatal(err)
		}
	}
	if begin("198.51.100.1:1", true) == nil {
		t.Error("there is no bound")
	}
	for _, end := range ends {
		end()
	}
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() { // context.AfterFunc calls on goroutines of its own
		h.mu.Lock()
		all, sources := h.all, len(h.from)
		h.mu.Unlock()
		if all == 0 && sources == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d handshakes of %d sources are left", all, sources)
		}
	}
	if h.prove(nil) {
		t.Error("a client has to prove its address, and nobody shakes hands")
	}
	if got, want := refused.Load(), int64(len(ends)+2); got != want {
		t.Errorf("%d handshakes are counted as refused, and %d did not succeed", got, want)
	}
}
