package mkcp

import (
	"context"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/kcp"
	"github.com/xtls/xray-core/transport/internet/stat"
	"github.com/xtls/xray-core/transport/internet/tls"
	"golang.org/x/time/rate"

	"nodeagent/xray/worker/transport/listen"
)

// New connections of a listener: burst at once, and then perSecond. Those of strangers end after the
// handshake time of the policy, 4 seconds, and some seconds of farewell, so that strangers hold two
// thousand at most. A client whose connection is refused sends again some 20 times a second, and gets
// in as soon as there is room.
const (
	perSecond = 200
	burst     = 500
)

// Listen listens for mKCP with xray-core's listener.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	room, refused := rate.NewLimiter(perSecond, burst), listen.Refused(stream)
	return kcp.ListenKCP(ctx, address, port, stream, func(conn stat.Connection) {
		if room.Allow() {
			handle(conn)
			return
		}
		refused()
		refuse(conn)
	})
}

// refuse forgets a connection. xray-core calls the handler with the listener's lock held, and
// SetState removes the connection on a goroutine of its own.
func refuse(conn net.Conn) {
	if secure, is := conn.(*tls.Conn); is {
		conn = secure.NetConn()
	}
	if own, is := conn.(*kcp.Connection); is {
		own.SetState(kcp.StateTerminated)
		return
	}
	go func() { _ = conn.Close() }()
}
