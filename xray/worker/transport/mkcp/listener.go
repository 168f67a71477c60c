package mkcp

import (
	"context"
	"sync"
	"time"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/finalmask"
	"github.com/xtls/xray-core/transport/internet/kcp"
	"github.com/xtls/xray-core/transport/internet/stat"
	"github.com/xtls/xray-core/transport/internet/tls"
	"golang.org/x/time/rate"

	"nodeagent/xray/worker/relay"
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

// sourceLife is how long a source stays with a worker that drains, after the last answer. An open
// connection sends at least every five seconds (transport/internet/kcp/connection.go:240).
const sourceLife = 20 * time.Second

// Listener is xray-core's listener.
type Listener struct{ *kcp.Listener }

// Close closes the listener and its connections.
func (l *Listener) Close() error {
	open.Lock()
	delete(open.listeners, l)
	open.Unlock()
	return l.Listener.Close()
}

// open has the listeners of this process: xray-core makes them without telling for whom.
var open = struct {
	sync.Mutex
	listeners map[*Listener]struct{}
}{listeners: map[*Listener]struct{}{}}

// Open returns how many connections the listeners of this process have.
func Open() (n int) {
	open.Lock()
	defer open.Unlock()
	for l := range open.listeners {
		n += l.ActiveConnections()
	}
	return n
}

// Listen listens for mKCP with xray-core's listener. Its connections stay with this worker when another
// one takes over: a client opens a socket, and so has a source, for each connection
// (transport/internet/kcp/dialer.go:51). The masks are below: they may hide the conversation's number.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	room, refused := rate.NewLimiter(perSecond, burst), listen.Refused(stream)
	shared := *stream
	shared.UdpmaskManager = finalmask.NewUdpmaskManager([]finalmask.Udpmask{steered{stream.UdpmaskManager}})
	made, err := kcp.NewListener(ctx, address, port, &shared, func(conn stat.Connection) {
		if room.Allow() {
			handle(conn)
			return
		}
		refused()
		refuse(conn)
	})
	if err != nil {
		return nil, err
	}
	l := &Listener{made}
	open.Lock()
	defer open.Unlock()
	open.listeners[l] = struct{}{}
	return l, nil
}

// steered lets a socket pass datagrams by their source, below the masks of the inbound, which may be nil.
// To xray-core it is a mask, the one way to the listener's socket (transport/internet/udp/hub.go:71).
type steered struct{ masks *finalmask.UdpmaskManager }

// UDP is a part of being a mask.
func (steered) UDP() {}

// WrapPacketConnClient is a part of being a mask, for outbounds.
func (steered) WrapPacketConnClient(raw net.PacketConn, _, _ int) (net.PacketConn, error) {
	return raw, nil
}

// WrapPacketConnServer returns the socket with the masks around it.
func (s steered) WrapPacketConnServer(raw net.PacketConn, _, _ int) (net.PacketConn, error) {
	socket := relay.ListenSources(raw, sourceLife, true) // perSecond bounds them
	if s.masks == nil {
		return socket, nil
	}
	return s.masks.WrapPacketConnServer(socket)
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
