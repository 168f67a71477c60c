package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"
)

// refreshAtLeast is how often the addresses are read again where the kernel tells of no change,
// or can't be asked to.
const refreshAtLeast = 30 * time.Second

// Refresh reads the node's own addresses. On an error the ones before stay.
func (p *Policy) Refresh() error {
	own, err := ownAddresses()
	if err != nil {
		return err
	}
	p.own.Store(own)
	return nil
}

// Follow reads the node's own addresses at each change, until ctx ends.
func (p *Policy) Follow(ctx context.Context) {
	changes, err := subscribe()
	if err != nil { // the kernel may refuse the socket: the times below are enough then
		p.poll(ctx)
		return
	}
	defer changes.Close()
	stop := context.AfterFunc(ctx, func() { _ = changes.Close() })
	defer stop()
	message := make([]byte, 64<<10)
	for ctx.Err() == nil {
		_ = changes.SetReadDeadline(time.Now().Add(refreshAtLeast))
		// ENOBUFS says that there were more changes than the socket holds: they are read below.
		_, err := changes.Read(message)
		_ = p.Refresh()
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.ENOBUFS) {
			p.poll(ctx)
			return
		}
	}
}

func (p *Policy) poll(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = p.Refresh()
		}
	}
}

// subscribe returns a netlink socket that gets a message at each change of an address or of a
// local route (rtnetlink(7)).
func subscribe() (*os.File, error) {
	descriptor, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	file := os.NewFile(uintptr(descriptor), "netlink")
	if err := unix.Bind(descriptor, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_LINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to changes of addresses: %w", err), file.Close())
	}
	return file, nil
}

// ownAddresses returns the addresses of all interfaces, and what the kernel takes for its own
// without an interface that has it (ip route add local).
func ownAddresses() (*bart.Lite, error) {
	own := &bart.Lite{}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	for _, a := range addresses {
		if network, is := a.(*net.IPNet); is {
			if address, ok := netip.AddrFromSlice(network.IP); ok {
				address = address.Unmap()
				own.Insert(netip.PrefixFrom(address, address.BitLen()))
			}
		}
	}
	for _, route := range localRoutes() {
		own.Insert(route)
	}
	return own, nil
}

// localRoutes returns the destinations of the kernel's table "local"; none where the kernel does
// not tell. Other tables may have a local route to everything, for transparent inbounds
// (ip route add local 0.0.0.0/0 dev lo table 100).
func localRoutes() []netip.Prefix {
	dump, err := syscall.NetlinkRIB(unix.RTM_GETROUTE, unix.AF_UNSPEC)
	if err != nil {
		return nil
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return nil
	}
	var routes []netip.Prefix
	for i := range messages {
		m := &messages[i]
		// struct rtmsg: family, bits of the destination and of the source, tos, table, protocol,
		// scope, type, flags.
		if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
			continue
		}
		bits, table, kind := int(m.Data[1]), m.Data[4], m.Data[7]
		if table != unix.RT_TABLE_LOCAL || kind != unix.RTN_LOCAL && kind != unix.RTN_BROADCAST || bits == 0 {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			continue
		}
		for _, a := range attributes {
			if a.Attr.Type != unix.RTA_DST {
				continue
			}
			if address, ok := netip.AddrFromSlice(a.Value); ok && bits <= address.BitLen() {
				routes = append(routes, netip.PrefixFrom(address, bits).Masked())
			}
		}
	}
	return routes
}
