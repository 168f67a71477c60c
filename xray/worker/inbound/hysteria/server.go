package hysteria

import (
	"context"
	"fmt"

	"nodeagent/xray/worker/transport/hysteria"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/features/routing"
	xhysteria "github.com/xtls/xray-core/proxy/hysteria"
	"github.com/xtls/xray-core/proxy/hysteria/account"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/internet/stat"
)

// Server is xray-core's inbound, whose datagrams are handled by this package.
type Server struct{ *xhysteria.Server }

// Process serves one stream or one session of datagrams to its end.
func (s Server) Process(ctx context.Context, network net.Network, conn stat.Connection, dispatcher routing.Dispatcher) error {
	datagrams, is := stat.TryUnwrapStatsConn(conn).(*hysteria.DatagramConn)
	if !is {
		return s.Server.Process(ctx, network, conn, dispatcher)
	}
	inbound := session.InboundFromContext(ctx)
	inbound.Name, inbound.CanSpliceCopy, inbound.User = "hysteria", 3, &protocol.MemoryUser{}
	if user := datagrams.User(); user != nil {
		inbound.User = user
		inbound.VlessRoute = user.Account.(*account.MemoryAccount).VR
	}
	reader := &reader{from: datagrams}
	first, err := reader.next()
	if err != nil {
		return fmt.Errorf("read the first datagram of a session: %w", err)
	}
	reader.first = first
	to := *first.UDP
	return dispatcher.DispatchLink(ctx, to, &transport.Link{Reader: reader, Writer: &writer{to: datagrams, from: to.NetAddr()}})
}
