package process

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/telemt/service"
)

// CheckPorts is CheckPort for all addresses of an inbound. An inbound on both IP versions does
// without the one that the host does not have.
func CheckPorts(in service.Inbound) error {
	addresses := in.Addresses()
	lacking := 0
	for _, at := range addresses {
		err := CheckPort(in.Tag, at)
		if len(addresses) > 1 && err != nil && errors.Is(err, unix.EAFNOSUPPORT) {
			if lacking++; lacking < len(addresses) {
				continue
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// CheckPort returns nil if a process can listen on the TCP address now. Otherwise it
// returns an *service.ApplyError that says why not. tag is that of the inbound.
func CheckPort(tag string, at netip.AddrPort) error {
	network := "tcp4"
	if at.Addr().Is6() {
		network = "tcp6"
	}
	listener, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(at))
	if err == nil {
		return listener.Close()
	}
	failure := &service.ApplyError{Code: service.FailureApply, Tag: tag, Port: at.Port(), Cause: err}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		failure.Code = service.FailurePortInUse
		failure.Message = fmt.Sprintf("mtproto inbound %q: port %d (%s) is held by another process, which listens on it or has it as the local port of an outgoing connection; find it with 'ss -anp sport = :%d', then stop it or choose another port", tag, at.Port(), at, at.Port())
	case errors.Is(err, unix.EACCES):
		failure.Message = fmt.Sprintf("mtproto inbound %q: no permission to listen on port %d: the service needs CAP_NET_BIND_SERVICE", tag, at.Port())
	default:
		failure.Message = fmt.Sprintf("mtproto inbound %q: listen on %s: %v", tag, at, err)
	}
	return failure
}

// isListening reports whether a process listens on the TCP address. It connects to it,
// and does not try to listen there: telemt may be about to do that.
func isListening(at netip.AddrPort) bool {
	if at.Addr().IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if at.Addr().Is6() {
			loopback = netip.IPv6Loopback()
		}
		at = netip.AddrPortFrom(loopback, at.Port())
	}
	conn, err := net.DialTimeout("tcp", at.String(), time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// freePort returns a port of loopback that is free now.
func freePort() (uint16, error) {
	at, err := freeLoopback()
	if err != nil {
		return 0, err
	}
	parsed, err := netip.ParseAddrPort(at)
	return parsed.Port(), err
}

// freeLoopback returns an address on loopback with a port that is free now.
func freeLoopback() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port for telemt's API and metrics: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
