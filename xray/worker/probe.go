package worker

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/unixsocket"
)

// probe finds out whether the inbound's ports are free. xray-core's listeners
// set SO_REUSEPORT, so that it would share a port of another process in
// silence; a plain listen refuses. What another worker of this daemon holds is passed
// over, and what the inbounds do that run: one of them is its predecessor, or moves
// away in the same change.
func (e *executor) probe(want state.Inbound) error {
	bindings, err := want.Bindings()
	if err != nil {
		return fault.InText(want.Tag, "%v", err)
	}
	held := slices.Clone(e.held)
	for _, running := range e.shells {
		own, err := running.Bindings()
		if err != nil {
			return fault.InText(want.Tag, "%v", err)
		}
		held = append(held, own...)
	}
	for _, b := range bindings {
		if slices.ContainsFunc(held, b.Overlaps) {
			continue
		}
		if b.Path != "" {
			if err := unixsocket.Probe(b); err != nil {
				return err
			}
			continue
		}
		if err := tryListen(b); err != nil {
			return listenError(b, err)
		}
	}
	return nil
}

func tryListen(b state.Binding) error {
	address := netip.AddrPortFrom(b.Address, b.Port)
	if b.Network == "udp" {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(address))
	if err != nil {
		return err
	}
	return listener.Close()
}

// listenError says why the binding cannot be had. All of it is the host's to mend: a
// process can end, an interface can get the address, a kernel can get IPv6.
func listenError(b state.Binding, err error) error {
	failure := fault.OnHost(b.Tag, "inbound %q: listen on %s: %v", b.Tag, b, err)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		failure = fault.PortTaken(b.Tag, b.Port, "inbound %q: port %d (%s) is held by another process, which listens on it or has it as the local port of an outgoing connection; find it with 'ss -anp sport = :%d', then stop it or choose another port", b.Tag, b.Port, b, b.Port)
	case errors.Is(err, unix.EACCES):
		failure = fault.OnHost(b.Tag, "inbound %q: port %d (%s) may not be bound: the service needs CAP_NET_BIND_SERVICE", b.Tag, b.Port, b)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		failure = fault.OnHost(b.Tag, "inbound %q: no interface of this host has the address %s (port %d)", b.Tag, b.Address, b.Port)
	}
	failure.Port = b.Port
	return failure
}

// startError says why an inbound could not start whose ports probe found free, or this
// node's own. xray-core goes on without SO_REUSEPORT where the kernel refuses it, and then
// finds the port of the listener before in use.
func startError(want state.Inbound, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		if refusal := reusePortRefusal(); refusal != nil {
			return fault.OnHost(want.Tag, "inbound %q: its port is held by this node's own listener, which can't be replaced while it serves, since the kernel refuses SO_REUSEPORT (%v); allow that option in the sandbox of the service", want.Tag, refusal)
		}
	}
	return fault.OnHost(want.Tag, "start inbound %q: %v", want.Tag, err)
}

// reusePortRefusal returns why the kernel refuses SO_REUSEPORT; nil where it accepts it.
func reusePortRefusal() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil // nothing is known of the option
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}
