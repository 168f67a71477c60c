package wireguard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/xtls/xray-core/proxy/wireguard"
	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nic = 1
	// queued is how many packets for clients wait to be encrypted.
	queued = 1024
	// opening is how many TCP handshakes may be under way.
	opening = 65535
)

// tunnel is the network inside the device: it takes packets to every destination for its own, and
// gives TCP and UDP out as streams.
type tunnel struct {
	stack  *stack.Stack
	link   *channel.Endpoint
	mtu    int
	events chan tun.Event

	ctx     context.Context // ends with the tunnel
	cancel  context.CancelFunc
	endOnce sync.Once

	associated   func(*association, netip.AddrPort)
	mu           sync.Mutex
	associations map[netip.AddrPort]*association // by the client's address in the tunnel
}

func newTunnel(config *wireguard.DeviceConfig, connected func(conn *connection, client, to netip.AddrPort), associated func(*association, netip.AddrPort)) (*tunnel, error) {
	t := &tunnel{
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		}),
		link: channel.New(queued, uint32(config.Mtu), ""), mtu: int(config.Mtu), events: make(chan tun.Event, 1),
		associated: associated, associations: map[netip.AddrPort]*association{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if err := t.configure(config.Endpoint); err != nil {
		return nil, errors.Join(fmt.Errorf("make the tunnel's network: %w", err), t.Close())
	}
	forwarder := tcp.NewForwarder(t.stack, 0, opening, func(r *tcp.ForwarderRequest) {
		go func() {
			id := r.ID()
			var queue waiter.Queue
			endpoint, err := r.CreateEndpoint(&queue)
			r.Complete(err != nil) // with a reset where it failed
			if err == nil {
				keepAlive(endpoint)
				// The connection itself may have lost its addresses already.
				connected(newConnection(&queue, endpoint), addrPort(id.RemoteAddress, id.RemotePort), addrPort(id.LocalAddress, id.LocalPort))
			}
		}()
	})
	t.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	t.stack.SetTransportProtocolHandler(udp.ProtocolNumber, t.datagram)
	t.events <- tun.EventUp
	return t, nil
}

// keepAlive ends a connection in the tunnel whose client is gone after 70 seconds, as package life
// those of other inbounds. The system of a client that is there answers.
func keepAlive(endpoint tcpip.Endpoint) {
	idle, interval := tcpip.KeepaliveIdleOption(30*time.Second), tcpip.KeepaliveIntervalOption(10*time.Second)
	if endpoint.SetSockOpt(&idle) == nil && endpoint.SetSockOpt(&interval) == nil && endpoint.SetSockOptInt(tcpip.KeepaliveCountOption, 4) == nil {
		endpoint.SocketOptions().SetKeepAlive(true)
	}
}

// configure gives the network its addresses, and lets it take all others too.
func (t *tunnel) configure(addresses []string) error {
	sack := tcpip.TCPSACKEnabled(true)
	if err := t.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return errors.New(err.String())
	}
	if err := t.stack.CreateNIC(nic, t.link); err != nil {
		return errors.New(err.String())
	}
	for _, text := range addresses {
		host, _, _ := strings.Cut(text, "/")
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return err
		}
		protocol, all := ipv4.ProtocolNumber, header.IPv4EmptySubnet
		if ip.Is6() {
			protocol, all = ipv6.ProtocolNumber, header.IPv6EmptySubnet
		}
		own := tcpip.ProtocolAddress{Protocol: protocol, AddressWithPrefix: tcpip.AddrFromSlice(ip.AsSlice()).WithPrefix()}
		if err := t.stack.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("%s: %s", text, err)
		}
		t.stack.AddRoute(tcpip.Route{Destination: all, NIC: nic})
	}
	for _, set := range []func(tcpip.NICID, bool) tcpip.Error{t.stack.SetPromiscuousMode, t.stack.SetSpoofing} {
		if err := set(nic, true); err != nil {
			return errors.New(err.String())
		}
	}
	return nil
}

func addrPort(ip tcpip.Address, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip.AsSlice())
	return netip.AddrPortFrom(addr, port)
}

// Read implements tun.Device: a packet for a client.
func (t *tunnel) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	packet := t.link.ReadContext(t.ctx)
	if packet == nil {
		return 0, os.ErrClosed
	}
	defer packet.DecRef()
	sizes[0] = 0
	for _, part := range packet.AsSlices() {
		sizes[0] += copy(bufs[0][offset+sizes[0]:], part)
	}
	return 1, nil
}

// Write implements tun.Device: packets of clients.
func (t *tunnel) Write(bufs [][]byte, offset int) (int, error) {
	for i, b := range bufs {
		data := b[offset:]
		if len(data) == 0 {
			continue
		}
		var protocol tcpip.NetworkProtocolNumber
		switch data[0] >> 4 {
		case 4:
			protocol = header.IPv4ProtocolNumber
		case 6:
			protocol = header.IPv6ProtocolNumber
		default:
			return i, syscall.EAFNOSUPPORT
		}
		packet := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(data)})
		t.link.InjectInbound(protocol, packet)
		packet.DecRef()
	}
	return len(bufs), nil
}

// Close implements tun.Device, and ends every stream.
func (t *tunnel) Close() error {
	t.endOnce.Do(func() {
		t.cancel()
		t.mu.Lock()
		all := t.associations
		t.associations = map[netip.AddrPort]*association{}
		t.mu.Unlock()
		for _, a := range all {
			_ = a.Close()
		}
		t.stack.Close() // resets the connections
		t.link.Close()
		close(t.events)
	})
	return nil
}

// File, MTU, Name, Events and BatchSize implement tun.Device.

func (*tunnel) File() *os.File             { return nil }
func (t *tunnel) MTU() (int, error)        { return t.mtu, nil }
func (*tunnel) Name() (string, error)      { return "wireguard", nil }
func (t *tunnel) Events() <-chan tun.Event { return t.events }
func (*tunnel) BatchSize() int             { return atOnce }
