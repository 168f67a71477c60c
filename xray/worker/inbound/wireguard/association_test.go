package wireguard

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtls/xray-core/common/buf"
)

// An association ends two minutes after the last datagram in any direction, and not before.
func TestAssociationEndsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tunnel := &tunnel{associations: map[netip.AddrPort]*association{}}
		a := &association{tunnel: tunnel, client: netip.MustParseAddrPort("10.9.0.3:1"), packets: make(chan *buf.Buffer, waiting), ended: make(chan struct{})}
		tunnel.associations[a.client] = a
		for range 3 {
			go func() { time.Sleep(udpIdle - time.Second); a.packets <- buf.FromBytes([]byte("x")) }()
			if _, err := a.ReadMultiBuffer(); err != nil {
				t.Fatalf("it ended while the client sent: %v", err)
			}
		}
		begin := time.Now()
		go func() {
			for range 3 {
				time.Sleep(udpIdle - time.Second)
				_ = a.WriteMultiBuffer(nil)
			}
		}()
		if _, err := a.ReadMultiBuffer(); !errors.Is(err, io.EOF) {
			t.Errorf("it ended with %v", err)
		}
		if took := time.Since(begin); took != 4*udpIdle-3*time.Second {
			t.Errorf("it ended after %s", took)
		}
		if len(tunnel.associations) > 0 {
			t.Error("the tunnel still has it")
		}
	})
}
