package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"nodeagent/internal/logkey"
)

// handover gives listening sockets from one Core to the next. systemd keeps them meanwhile
// (FileDescriptorStoreMax=, systemd.service(5)): connections wait in the socket, and none is refused.
// A socket of a socket unit is taken in the same way.
type handover struct {
	sockets map[string][]net.Listener // that systemd has given, by name
	log     *slog.Logger
}

// The names under which systemd keeps the sockets.
const (
	nodesSocket = "nodes"
	apiSocket   = "api"
)

// takeHandover takes the sockets that systemd has for this process. Call it once.
func takeHandover(log *slog.Logger) *handover {
	sockets, err := activation.ListenersWithNames()
	if err != nil {
		log.Error("take the listening sockets that systemd keeps", logkey.Error, err)
	}
	return &handover{sockets: sockets, log: log}
}

// listen returns a socket that listens on a TCP address: one that systemd has given, or a new one,
// which systemd is to keep from now on under the name.
func (h *handover) listen(name, address string) (net.Listener, error) {
	wanted, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	for from, all := range h.sockets {
		for i, l := range all {
			if l != nil && sameAddress(l.Addr(), wanted) {
				all[i] = nil
				h.log.Info("the listening socket of the Core before goes on", logkey.Listen, l.Addr().String(), logkey.Name, from)
				return l, nil
			}
		}
	}
	// The sockets that systemd keeps under the name listen elsewhere.
	for i, l := range h.sockets[name] {
		if l != nil {
			_ = l.Close()
			h.sockets[name][i] = nil
		}
	}
	notify("FDSTOREREMOVE=1\nFDNAME=" + name)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	if err := keepSocket(name, listener); err != nil {
		h.log.Warn("systemd does not keep the listening socket: connections are refused while Core restarts", logkey.Error, err)
	}
	return listener, nil
}

// sameAddress tells whether a socket listens where it should. All addresses of IPv4 are within all
// addresses of IPv6.
func sameAddress(is net.Addr, wanted *net.TCPAddr) bool {
	at, ok := is.(*net.TCPAddr)
	if !ok || at.Port != wanted.Port || at.Zone != wanted.Zone {
		return false
	}
	a, b := at.AddrPort().Addr().Unmap(), wanted.AddrPort().Addr().Unmap()
	if !b.IsValid() {
		b = netip.IPv6Unspecified()
	}
	return a == b || a.IsUnspecified() && b.IsUnspecified() && a.Is6()
}

// keepSocket gives a socket to systemd to keep (sd_notify(3), FDSTORE=1). Where there is no systemd it
// does nothing.
func keepSocket(name string, listener net.Listener) error {
	path := os.Getenv("NOTIFY_SOCKET")
	tcp, ok := listener.(*net.TCPListener)
	if path == "" || !ok {
		return nil
	}
	file, err := tcp.File()
	if err != nil {
		return fmt.Errorf("copy a listening socket: %w", err)
	}
	defer file.Close()
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket for systemd: %w", err)
	}
	defer unix.Close(socket)
	err = unix.Sendmsg(socket, []byte("FDSTORE=1\nFDNAME="+name), unix.UnixRights(int(file.Fd())), &unix.SockaddrUnix{Name: path}, 0)
	if err != nil {
		return fmt.Errorf("give a listening socket to systemd: %w", err)
	}
	return nil
}

// done closes the sockets that nothing has asked for.
func (h *handover) done() {
	for name, all := range h.sockets {
		for _, l := range all {
			if l != nil {
				h.log.Warn("a socket that systemd has given is not used", logkey.Listen, l.Addr().String(), logkey.Name, name)
				_ = l.Close()
				notify("FDSTOREREMOVE=1\nFDNAME=" + name)
			}
		}
	}
}
