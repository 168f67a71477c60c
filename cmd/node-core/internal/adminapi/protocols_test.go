package adminapi

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// Of many commands that add an inbound on one port at the same time one succeeds.
func TestOnePortIsTakenOnce(t *testing.T) {
	s := newServer(t)
	var taken atomic.Int32
	var together sync.WaitGroup
	for i := range 8 {
		together.Go(func() {
			flags := nodeconfig.InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443}
			if _, _, err := s.protocolAdd(t.Context(), coreapi.NewProtocol{Node: "fra1", Tag: fmt.Sprint("in-", i), Flags: flags}); err == nil {
				taken.Add(1)
			}
		})
	}
	together.Wait()
	if n := taken.Load(); n != 1 {
		t.Errorf("%d inbounds took the port, want 1", n)
	}
}
