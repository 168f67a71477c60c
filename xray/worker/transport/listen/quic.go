package listen

import (
	"context"
	"errors"
	gonet "net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apernet/quic-go"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"

	"nodeagent/xray/worker/relay"
)

// Bounds of the handshakes of one QUIC listener. A connection in its handshake takes some 30 to
// 80 KB of memory, and quic-go gives it 10 seconds (twice quic.Config.HandshakeIdleTimeout).
const (
	// UnprovenHandshakes is from how many handshakes on a client has to prove first that it gets
	// what is sent to its address (Retry, RFC 9000 section 8.1.2). Until it does, quic-go keeps
	// nothing of it.
	UnprovenHandshakes = 64
	// MostHandshakes is how many there are at most.
	MostHandshakes = 2048
	// AddressHandshakes is how many of these one address has at most; for IPv6, one network of 64
	// bits.
	AddressHandshakes = 256
)

// KeepAliveQUIC is after which time without a packet a peer over QUIC is asked whether it is there. Stock
// Xray's clients of Hysteria ask nothing (transport/internet/hysteria/dialer.go:113): without an
// answer to give, one that is silent was cut after QUIC's idle time, 30 seconds. One that has vanished
// ends after 40: the first question begins the idle time again (RFC 9000 section 10.1).
const KeepAliveQUIC = 10 * time.Second

// PacketSocket opens a socket for QUIC, with the masks of the inbound.
func PacketSocket(what string, address *gonet.UDPAddr, stream *internet.MemoryStreamConfig) (net.PacketConn, error) {
	socket, err := internet.ListenSystemPacket(context.Background(), address, stream.SocketSettings)
	if err != nil || stream.UdpmaskManager == nil {
		return socket, err
	}
	masked, err := stream.UdpmaskManager.WrapPacketConnServer(socket)
	if err != nil {
		return nil, errors.Join(maskError(what, address, err), socket.Close())
	}
	return masked, nil
}

// QUIC makes a transport over the socket whose handshakes are bounded, and whose connections outlive
// the takeover by another worker. reset is nil for no stateless resets. It calls refused for each
// connection whose handshake does not succeed. The caller tells Handshakes of each connection that it
// accepts, and closes the transport's Conn, which closes socket.
func QUIC(socket net.PacketConn, reset *quic.StatelessResetKey, refused func()) (*quic.Transport, *Handshakes) {
	h := &Handshakes{refused: refused, from: map[netip.Prefix]int{}}
	t := &quic.Transport{Conn: relay.Listen(socket), StatelessResetKey: reset, VerifySourceAddress: h.prove, ConnContext: h.begin}
	relay.Transport(t)
	return t, h
}

// Handshakes counts the connections of a listener that are in their handshake. quic-go's
// goroutine calls prove and begin; mu guards the counts.
type Handshakes struct {
	refused func()

	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int // by the source; no count is zero
}

// prove tells whether a client has to prove its address before anything is kept of it.
func (h *Handshakes) prove(gonet.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all >= UnprovenHandshakes
}

var errTooManyHandshakes = errors.New("too many handshakes")

type handshakeKey struct{}

// handshake is one connection's. end is called once it has succeeded or the connection has ended.
type handshake struct {
	succeeded atomic.Bool
	end       func()
}

// begin counts a connection, until it is accepted or has ended. With an error quic-go refuses it.
func (h *Handshakes) begin(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
	source := sourceOf(client.RemoteAddr)
	h.mu.Lock()
	defer h.mu.Unlock()
	// The source of an address that is not proven says nothing: prove bounds those.
	if h.all >= MostHandshakes || client.AddrVerified && h.from[source] >= AddressHandshakes {
		h.refused()
		return nil, errTooManyHandshakes
	}
	h.all++
	h.from[source]++
	done := &handshake{}
	done.end = sync.OnceFunc(func() {
		if !done.succeeded.Load() {
			h.refused()
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all--
		if h.from[source]--; h.from[source] == 0 {
			delete(h.from, source)
		}
	})
	context.AfterFunc(ctx, done.end)
	return context.WithValue(ctx, handshakeKey{}, done), nil
}

// Done says that the handshake of a connection has succeeded. It is called for each connection.
func (h *Handshakes) Done(conn *quic.Conn) {
	if done, is := conn.Context().Value(handshakeKey{}).(*handshake); is {
		done.succeeded.Store(true)
		done.end()
	}
}

// sourceOf returns whom an address belongs to: an IPv4 address, or the first 64 bits of an IPv6
// address, of which one host has all.
func sourceOf(address gonet.Addr) netip.Prefix {
	udp, is := address.(*gonet.UDPAddr)
	if !is {
		return netip.Prefix{}
	}
	ip := udp.AddrPort().Addr().Unmap().WithZone("")
	source, _ := ip.Prefix(min(ip.BitLen(), 64))
	return source
}
