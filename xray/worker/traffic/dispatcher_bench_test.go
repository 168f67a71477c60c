package traffic

import (
	"context"
	"testing"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/transport"

	"nodeagent/internal/counters"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// endingDispatcher ends each stream at once.
type endingDispatcher struct{ routing.Dispatcher }

func (endingDispatcher) DispatchLink(context.Context, net.Destination, *transport.Link) error {
	return nil
}

// BenchmarkStream reports what a stream costs that is admitted, moves nothing and ends: without
// limits, with limits, and with a grant.
func BenchmarkStream(b *testing.B) {
	for _, c := range []struct {
		name   string
		limits state.Limits
	}{{"free", state.Limits{}}, {"limited", state.Limits{Connections: 100}}} {
		b.Run(c.name, func(b *testing.B) {
			registry := NewRegistry(func(ipc.Message) {})
			d := &Dispatcher{inner: endingDispatcher{}, clients: registry}
			client := state.Client{Email: "a client's email", Limits: c.limits, Group: "g"}
			registry.Put("in", []state.Client{client}, []*counters.Slot{new(counters.Slot)})
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			ctx = session.ContextWithInbound(ctx, &session.Inbound{
				Tag: "in", User: &protocol.MemoryUser{Email: client.Email}, Source: net.TCPDestination(net.IPAddress([]byte{192, 0, 2, 1}), 1234),
			})
			to := net.TCPDestination(net.DomainAddress("target.test"), 443)
			b.ReportAllocs()
			for b.Loop() {
				if err := d.DispatchLink(ctx, to, &transport.Link{Reader: bytesOnce(1), Writer: buf.Discard}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
