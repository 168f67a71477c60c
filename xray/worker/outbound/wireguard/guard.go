package wireguard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"reflect"

	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/wireguard"
	"github.com/xtls/xray-core/transport/internet"
	"golang.zx2c4.com/wireguard/tun"

	"nodeagent/xray/worker/reach"
)

// Guard gives a WireGuard outbound an interface that does not say when it is up or down, and keeps
// clients from the node itself where that is an interface of the kernel. It
// leaves every other outbound as it is. It is called before the outbound's first stream. It
// fails where xray-core's outbound no longer has the member that it changes.
func Guard(handler outbound.Handler) error {
	holder, ok := handler.(proxy.GetOutbound)
	if !ok {
		return nil
	}
	client, ok := holder.GetOutbound().(*wireguard.Handler)
	if !ok {
		return nil
	}
	device, err := deviceOf(client)
	if err != nil {
		return err
	}
	// The other kind of interface is xray-core's own stack, which has no loopback and no services.
	if _, ofStack := (*device).(interface{ WriteNotify() }); !ofStack {
		if err := keepFromNode(client); err != nil {
			return err
		}
	}
	*device = quiet{*device}
	return nil
}

// keepFromNode makes an outbound over a kernel interface dial no address that clients may not reach. The
// kernel takes the node's address in the tunnel for a local one, and xray-core goes on where it
// can't bind a socket to the interface (proxy/wireguard/tun_linux.go:202).
func keepFromNode(client *wireguard.Handler) error {
	member := reflect.ValueOf(client).Elem().FieldByName("tnet")
	if !member.IsValid() || member.Type() != reflect.TypeFor[*wireguard.Net]() {
		return fmt.Errorf("xray-core's %T has no tnet that is a *wireguard.Net any more", client)
	}
	tnet := *(**wireguard.Net)(member.Addr().UnsafePointer())
	dialTCP, dialUDP := tnet.DialContextTCPAddrPort, tnet.DialUDPAddrPort
	tnet.DialContextTCPAddrPort = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		if err := reach.Check(to.Addr()); err != nil {
			return nil, err
		}
		return dialTCP(ctx, to)
	}
	tnet.DialUDPAddrPort = func(from, to netip.AddrPort) (net.Conn, error) {
		if err := reach.Check(to.Addr()); err != nil {
			return nil, err
		}
		conn, err := dialUDP(from, to)
		if wrapper, is := conn.(*internet.PacketConnWrapper); err == nil && is {
			wrapper.PacketConn = reach.Socket(wrapper.PacketConn) // a client sends to other addresses too
		}
		return conn, err
	}
	return nil
}

// deviceOf points to the interface that the outbound gives its device.
func deviceOf(client *wireguard.Handler) (*tun.Device, error) {
	member := reflect.ValueOf(client).Elem().FieldByName("tun")
	if !member.IsValid() || member.Type() != reflect.TypeFor[tun.Device]() {
		return nil, fmt.Errorf("xray-core's %T has no tun that is a tun.Device any more", client)
	}
	return (*tun.Device)(member.Addr().UnsafePointer()), nil
}

// quiet is an interface that tells its device about changes of its MTU alone.
type quiet struct{ tun.Device }

// Events implements tun.Device. A device calls it once, and reads until the interface is
// closed.
func (q quiet) Events() <-chan tun.Event {
	passed := make(chan tun.Event)
	go func() {
		defer close(passed)
		for event := range q.Device.Events() {
			if event&tun.EventMTUUpdate != 0 {
				passed <- tun.EventMTUUpdate
			}
		}
	}()
	return passed
}
