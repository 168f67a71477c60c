package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"

	"golang.org/x/sys/unix"
)

// Probe finds out whether a unix socket can be had: another process has none there,
// and one can be made. A file on which no process listens does not matter.
func Probe(b state.Binding) error {
	says := func(format string, args ...any) string {
		return fmt.Sprintf("inbound %q: the unix socket %s ", b.Tag, b.Path) + fmt.Sprintf(format, args...)
	}
	const held = "is held by another process; find it with 'ss -lxp', then stop it or choose another path"
	if isAbstract(b.Path) {
		listener, err := net.Listen("unix", abstractName(b.Path))
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return fault.PortTaken(b.Tag, 0, "%s", says(held))
		case err != nil:
			return fault.Caused(err, b.Tag, "%s", says("can't be made: %v", err))
		}
		return listener.Close()
	}
	if most := longestUnixPath - len(besidePrefix(b.Path)) + len(b.Path) - besideText; len(b.Path) > most {
		return fault.InText(b.Tag, "%s", says("has a path of %d bytes: want %d at the most", len(b.Path), most))
	}
	folder := filepath.Dir(b.Path)
	if err := unix.Access(folder, unix.W_OK|unix.X_OK); err != nil {
		return fault.OnHost(b.Tag, "%s", says("can't be made: its folder %s: %v; make it, and let the service write there", folder, err))
	}
	switch info, err := os.Lstat(b.Path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.OnHost(b.Tag, "%s", says("can't be looked at: %v", err))
	case info.Mode().Type() != fs.ModeSocket:
		return fault.OnHost(b.Tag, "%s", says("can't be made: something else is at its path, a %s; remove it or choose another path", info.Mode()))
	case isHeld(b.Path):
		return fault.PortTaken(b.Tag, 0, "%s", says(held))
	}
	return nil
}

// abstractName is the name that xray-core listens on: what begins with @@ it fills up with
// zeros.
func abstractName(path string) string {
	if !strings.HasPrefix(path, "@@") {
		return path
	}
	full := make([]byte, len(unix.RawSockaddrUnix{}.Path))
	copy(full, path[1:])
	return string(full)
}

// isHeld tells whether a process has the socket at path, also where that may not be
// known. A datagram socket reaches no stream socket, so that nobody notices the question.
func isHeld(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}
