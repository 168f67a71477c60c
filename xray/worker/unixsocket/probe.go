package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"nodeagent/xray/ipc"
	"nodeagent/xray/state"

	"golang.org/x/sys/unix"
)

// probeUnix finds out whether a unix socket can be had: another process has none there,
// and one can be made. A file on which nobody listens is in nobody's way.
func Probe(b state.Binding) error {
	refuse := func(code ipc.FailureCode, format string, args ...any) error {
		return &ipc.OperationError{Code: code, Tag: b.Tag, Message: fmt.Sprintf("inbound %q: the unix socket %s ", b.Tag, b.Path) + fmt.Sprintf(format, args...)}
	}
	const held = "is held by another process; find it with 'ss -lxp', then stop it or choose another path"
	if isAbstract(b.Path) {
		listener, err := net.Listen("unix", abstractName(b.Path))
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return refuse(ipc.FailurePortInUse, held)
		case err != nil:
			return refuse(ipc.FailureInvalid, "can't be made: %v", err)
		}
		return listener.Close()
	}
	if most := longestUnixPath - len(besidePrefix(b.Path)) + len(b.Path) - besideText; len(b.Path) > most {
		return refuse(ipc.FailureInvalid, "has a path of %d bytes: want %d at the most", len(b.Path), most)
	}
	folder := filepath.Dir(b.Path)
	if err := unix.Access(folder, unix.W_OK|unix.X_OK); err != nil {
		return refuse(ipc.FailureOther, "can't be made: its folder %s: %v; make it, and let the service write there", folder, err)
	}
	switch info, err := os.Lstat(b.Path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return refuse(ipc.FailureOther, "can't be looked at: %v", err)
	case info.Mode().Type() != fs.ModeSocket:
		return refuse(ipc.FailureInvalid, "can't be made: something else is at its path, a %s; remove it or choose another path", info.Mode())
	case isHeld(b.Path):
		return refuse(ipc.FailurePortInUse, held)
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
