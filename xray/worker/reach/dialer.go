package reach

import (
	"context"
	"fmt"
	gonet "net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/transport/internet"
	"google.golang.org/protobuf/proto"
)

type (
	choiceKey   struct{}
	operatorKey struct{}
)

// Choice says that the client of a stream has chosen where its outbound connects to.
type Choice struct {
	policy *Policy
	// hop is the number of outbounds in the context of the outbound that was marked. A later one
	// of a chain (dialerProxy) has more, and connects to what the configuration says.
	hop int
	// opens says whether the outbound's own rules open an address. nil: they open none.
	opens  func(network net.Network, address netip.Addr, port net.Port) bool
	denied atomic.Bool
}

// ByOperator marks the context of a connection whose destination the configuration has chosen.
func ByOperator(ctx context.Context) context.Context {
	return context.WithValue(ctx, operatorKey{}, true)
}

// Choose returns the context with which an outbound dials what the client of its stream has
// chosen. It returns ctx and nil where nobody is to be kept from the node: the destination is
// the operator's choice, or the stream is xray-core's own.
func Choose(ctx context.Context, opens func(net.Network, netip.Addr, net.Port) bool) (context.Context, *Choice) {
	policy := current.Load()
	outbounds := session.OutboundsFromContext(ctx)
	if policy == nil || len(outbounds) == 0 || !byClient(ctx, outbounds) {
		return ctx, nil
	}
	c := &Choice{policy: policy, hop: len(outbounds), opens: opens}
	return context.WithValue(ctx, choiceKey{}, c), c
}

func byClient(ctx context.Context, outbounds []*session.Outbound) bool {
	if before, _ := ctx.Value(choiceKey{}).(*Choice); len(outbounds) > 1 {
		// The next outbound of a chain. Its destination is a client's choice only where the
		// outbound before it passes on what the client wants.
		return before != nil && before.hop == len(outbounds)-1
	}
	in := session.InboundFromContext(ctx)
	if in == nil || in.Name == "" && in.Source.Address == nil {
		return false // xray-core's own DNS client, or its observatory
	}
	if in.Name == "vless-reverse" {
		// xray-core blocks everything that comes through a reverse proxy, loopback too, unless
		// the outbound's finalRules allow it (proxy/freedom/freedom.go:155).
		return false
	}
	last := outbounds[len(outbounds)-1]
	if byOperator, _ := ctx.Value(operatorKey{}).(bool); byOperator {
		return last.Target.Address != last.OriginalTarget.Address // a name that was sniffed is the client's
	}
	return true
}

// Check returns a *Denied where the client may not reach the address.
func (c *Choice) Check(network net.Network, address netip.Addr, port net.Port) error {
	err := c.policy.Check(address)
	if err == nil || c.opens != nil && c.opens(network, address.Unmap(), port) {
		return nil
	}
	if !c.denied.Swap(true) {
		c.policy.denied.Add(1)
	}
	return err
}

func (c *Choice) allows(network net.Network, address netip.Addr, port net.Port) bool {
	return c.Check(network, address, port) == nil
}

// CheckTarget is Check for a destination that has an address. It returns nil for a name: the name
// is resolved when it is dialled.
func (c *Choice) CheckTarget(to net.Destination) error {
	if to.Address == nil || !to.Address.Family().IsIP() {
		return nil
	}
	address, _ := netip.AddrFromSlice(to.Address.IP())
	return c.Check(to.Network, address, to.Port)
}

// Check returns a *Denied for an address that no client may reach, by the policy of this process, for
// outbounds whose connections the dialer does not see. Every refusal is counted.
func Check(address netip.Addr) error {
	policy := current.Load()
	if policy == nil {
		return nil
	}
	err := policy.Check(address)
	if err != nil {
		policy.denied.Add(1)
	}
	return err
}

// Socket wraps a socket of such an outbound. It drops datagrams to addresses that no client may reach.
func Socket(inner gonet.PacketConn) gonet.PacketConn {
	policy := current.Load()
	if policy == nil {
		return inner
	}
	return &socket{inner, &Choice{policy: policy}}
}

// Socket wraps a socket over which the client sends datagrams to addresses that it chooses. It
// drops datagrams to addresses that the client may not reach.
func (c *Choice) Socket(inner gonet.PacketConn) gonet.PacketConn { return &socket{inner, c} }

type socket struct {
	gonet.PacketConn
	choice *Choice
}

// WriteTo implements net.PacketConn.
func (s *socket) WriteTo(datagram []byte, to gonet.Addr) (int, error) {
	if udp, is := to.(*gonet.UDPAddr); is {
		address := udp.AddrPort()
		if !s.choice.allows(net.Network_UDP, address.Addr(), net.Port(address.Port())) {
			return len(datagram), nil // as freedom's own rules do: nobody is told
		}
	}
	return s.PacketConn.WriteTo(datagram, to)
}

// current is the policy of this process, as xray-core's system dialer is the process's.
var current atomic.Pointer[Policy]

// Install makes the policy that of this process. It is called before xray-core dials.
func Install(p *Policy) {
	if !enabled {
		return
	}
	current.Store(p)
	internet.UseAlternativeSystemDialer(&dialer{&quickDialer{}})
}

// quickDialer dials TCP to an address, if no options are set on the socket, as xray-core's own dialer
// does (transport/internet/system_dialer.go:89). It makes no message for the log: xray-core looks up the
// caller of each message before it drops it, which takes a hundredth of the processor time of a new
// connection.
type quickDialer struct{ internet.DefaultSystemDialer }

// Dial dials destination.
func (d *quickDialer) Dial(ctx context.Context, source net.Address, destination net.Destination, sockopt *internet.SocketConfig) (net.Conn, error) {
	if destination.Network != net.Network_TCP || sockopt != nil || source != nil || !destination.Address.Family().IsIP() || len(internet.Controllers) > 0 {
		return d.DefaultSystemDialer.Dial(ctx, source, destination, sockopt)
	}
	return plainTCP.DialContext(ctx, "tcp", destination.NetAddr())
}

// plainTCP has the times of xray-core's dialer.
var plainTCP = gonet.Dialer{
	Timeout:         16 * time.Second,
	KeepAliveConfig: gonet.KeepAliveConfig{Enable: true, Idle: 45 * time.Second, Interval: 45 * time.Second, Count: -1},
}

// dialer checks the addresses that clients have chosen before xray-core's own dialer dials them.
type dialer struct{ internet.SystemDialer }

// Dial dials destination. It resolves a name that a client has chosen itself, so that the address
// that is dialled is one that was checked.
func (d *dialer) Dial(ctx context.Context, source net.Address, destination net.Destination, sockopt *internet.SocketConfig) (net.Conn, error) {
	c, _ := ctx.Value(choiceKey{}).(*Choice)
	if c == nil || c.hop != len(session.OutboundsFromContext(ctx)) {
		return d.SystemDialer.Dial(ctx, source, destination, sockopt)
	}
	addresses, err := resolve(ctx, source, destination)
	if err != nil {
		return nil, err
	}
	var denied error
	addresses = slices.DeleteFunc(addresses, func(a netip.Addr) bool {
		err := c.Check(destination.Network, a, destination.Port)
		if err != nil {
			denied = fmt.Errorf("dial %s: %w", destination.NetAddr(), err)
		}
		return err != nil
	})
	if len(addresses) == 0 {
		return nil, denied
	}
	if len(addresses) == 1 || destination.Network != net.Network_TCP {
		destination.Address = addressOf(addresses[0])
		return d.SystemDialer.Dial(ctx, source, destination, sockopt)
	}
	return race(ctx, source, addresses, destination, sockopt)
}

// resolve returns the addresses of destination, at least one.
func resolve(ctx context.Context, source net.Address, destination net.Destination) ([]netip.Addr, error) {
	if destination.Address.Family().IsIP() {
		address, _ := netip.AddrFromSlice(destination.Address.IP())
		return []netip.Addr{address}, nil
	}
	name := destination.Address.Domain()
	if destination.Network != net.Network_TCP {
		// As xray-core does: one address, IPv4 first (transport/internet/system_dialer.go:56).
		address, err := gonet.ResolveUDPAddr("udp", destination.NetAddr())
		if err != nil {
			return nil, err
		}
		return []netip.Addr{address.AddrPort().Addr()}, nil
	}
	network := "ip"
	if source != nil && source != net.AnyIP && source.Family().IsIP() { // only those that it can be bound for
		network = "ip6"
		if source.Family().IsIPv4() {
			network = "ip4"
		}
	}
	addresses, err := gonet.DefaultResolver.LookupNetIP(ctx, network, name)
	if err == nil && len(addresses) == 0 {
		err = &gonet.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return addresses, err
}

// race dials several addresses as Go's dialer does for a name: the next one 300 ms after the one
// before (RFC 8305 section 5, net.Dialer.FallbackDelay), beginning with the family that the
// resolver prefers. Each of them passes Dial again.
func race(ctx context.Context, source net.Address, addresses []netip.Addr, destination net.Destination, sockopt *internet.SocketConfig) (net.Conn, error) {
	ips := make([]net.IP, 0, len(addresses))
	for _, a := range addresses {
		ips = append(ips, a.Unmap().AsSlice())
	}
	racing := &internet.SocketConfig{}
	if sockopt != nil {
		racing = proto.CloneOf(sockopt)
	}
	racing.HappyEyeballs = &internet.HappyEyeballsConfig{
		PrioritizeIpv6: !addresses[0].Unmap().Is4(), Interleave: 1, TryDelayMs: 300, MaxConcurrentTry: 4,
	}
	return internet.TcpRaceDial(ctx, source, ips, destination.Port, racing, destination.Address.Domain())
}

func addressOf(a netip.Addr) net.Address { return net.IPAddress(a.Unmap().AsSlice()) }
