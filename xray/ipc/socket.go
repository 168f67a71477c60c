package ipc

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The descriptors that a worker inherits: its listening socket, or its end of a pair where there is
// none, and a pipe with its secret.
const (
	SocketFD = 3
	SecretFD = 4
)

const (
	folder = "workers" // in the runtime folder
	suffix = ".sock"
	// backlog is how many connections wait for a worker that is busy.
	backlog = 16
	// maxSecret bounds the secret, in bytes.
	maxSecret = 64
)

// Folder is the folder with the sockets of the workers. Only its owner and root may enter it.
type Folder struct {
	path  string
	dir   *os.File
	owner uint32
}

// OpenFolder opens the folder of the workers in the runtime folder, and makes it where it is
// missing. The caller closes it.
func OpenFolder(runtimeDir string) (*Folder, error) {
	path := filepath.Join(runtimeDir, folder)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the folder of the workers' sockets: %w", err)
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open the folder of the workers' sockets: %w", err)
	}
	var about unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &about); err != nil {
		return nil, errors.Join(fmt.Errorf("look at %s: %w", path, err), dir.Close())
	}
	if int(about.Uid) != os.Geteuid() && os.Geteuid() != 0 || about.Mode&0o077 != 0 {
		return nil, errors.Join(fmt.Errorf("the folder %s has mode %03o and belongs to user %d, want mode 700 and user %d: who can enter it reaches the workers; remove it, and node-agent makes it anew",
			path, about.Mode&0o777, about.Uid, os.Geteuid()), dir.Close())
	}
	return &Folder{path, dir, about.Uid}, nil
}

// HasFolder tells whether the runtime folder has a folder of workers.
func HasFolder(runtimeDir string) bool {
	_, err := os.Stat(filepath.Join(runtimeDir, folder))
	return err == nil
}

// Close closes the folder. The sockets stay.
func (f *Folder) Close() error { return f.dir.Close() }

// address leads to the socket of a name: the path of a unix socket has at most 107 bytes
// (unix(7)), and the runtime folder may have a longer one.
func (f *Folder) address(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s%s", f.dir.Fd(), name, suffix)
}

// Names returns the names of the sockets.
func (f *Folder) Names() ([]string, error) {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, fmt.Errorf("list the workers' sockets: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if name, is := strings.CutSuffix(entry.Name(), suffix); is && entry.Type() == fs.ModeSocket {
			names = append(names, name)
		}
	}
	return names, nil
}

// Remove removes the socket of a worker that has ended. It does nothing where there is none.
func (f *Folder) Remove(name string) { _ = os.Remove(filepath.Join(f.path, name+suffix)) }

// RemoveSocket is Remove for the folder of a runtime folder, which need not be there any more.
func RemoveSocket(runtimeDir, name string) {
	_ = os.Remove(filepath.Join(runtimeDir, folder, name+suffix))
}

// Listen makes a listening socket for a worker, which inherits it as SocketFD. The caller closes
// it.
func (f *Folder) Listen(name string) (*os.File, error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: f.address(name), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make a worker's socket: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	return file, errors.Join(err, listener.Close())
}

// Pair makes a connection with a worker that no other daemon can reach, where a listening socket
// can't be had. The worker inherits theirs as SocketFD. The caller closes both.
func Pair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "worker")
	theirs = os.NewFile(uintptr(fds[1]), "daemon")
	ours, err = net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make socket pair: %w", err), theirs.Close())
	}
	return ours, theirs, nil
}

// ErrNobody means that a socket has no worker any more.
var ErrNobody = errors.New("no process listens on the socket")

// Dial connects with the worker of a name. pid is the process that listens; for a worker that was
// just started it may still be this process. It returns ErrNobody where the worker has ended.
func (f *Folder) Dial(name string) (conn *net.UnixConn, pid int, err error) {
	conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: f.address(name), Net: "unix"})
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, 0, ErrNobody
	}
	if err != nil {
		return nil, 0, fmt.Errorf("connect with a worker: %w", err)
	}
	if pid, err = peer(conn, f.owner); err != nil {
		return nil, 0, errors.Join(err, conn.Close())
	}
	return conn, pid, nil
}

// peer returns the process at the other side. It returns an error where that runs as another user
// than user.
func peer(conn *net.UnixConn, user uint32) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("look who is at the other side of the socket: %w", err)
	}
	var who *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) { who, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, asked); err != nil {
		return 0, fmt.Errorf("look who is at the other side of the socket: %w", err)
	}
	if who.Uid != user {
		return 0, fmt.Errorf("process %d of user %d is at the other side of the socket, want user %d", who.Pid, who.Uid, user)
	}
	return int(who.Pid), nil
}

// Listener takes the connections of daemons. A connection from a process of another user is
// closed.
type Listener struct {
	inner *net.UnixListener
	// only has the one connection of a worker that inherits one end of a pair and not a
	// listening socket: no other daemon reaches it.
	only <-chan net.Conn
}

// Inherited returns what a worker inherits from the daemon that starts it: the listener, and the
// secret.
func Inherited() (*Listener, []byte, error) {
	secret := make([]byte, maxSecret)
	pipe := os.NewFile(SecretFD, "secret")
	n, err := pipe.Read(secret)
	if err = errors.Join(err, pipe.Close()); err != nil {
		return nil, nil, fmt.Errorf("read the daemon's secret (this command is for the daemon alone): %w", err)
	}
	file := os.NewFile(SocketFD, "daemon")
	defer file.Close()
	if listens, err := unix.GetsockoptInt(SocketFD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 0 {
		conn, err := net.FileConn(file)
		if err != nil {
			return nil, nil, fmt.Errorf("find the daemon's socket: %w", err)
		}
		only := make(chan net.Conn, 1)
		only <- conn
		return &Listener{only: only}, secret[:n], nil
	}
	// From now on a daemon that connects sees this process as the one that listens: a socket has
	// the credentials of the process that called listen last (unix(7), SO_PEERCRED).
	if err := unix.Listen(SocketFD, backlog); err != nil {
		return nil, nil, fmt.Errorf("listen for the daemon (this command is for the daemon alone): %w", err)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, nil, fmt.Errorf("find the daemon's socket: %w", err)
	}
	inner, is := listener.(*net.UnixListener)
	if !is {
		return nil, nil, fmt.Errorf("find the daemon's socket: descriptor %d is a socket of %s", SocketFD, listener.Addr().Network())
	}
	return &Listener{inner: inner}, secret[:n], nil
}

// Accept returns the next connection of a process of the same user.
func (l *Listener) Accept() (net.Conn, error) {
	if l.only != nil {
		return <-l.only, nil
	}
	for {
		conn, err := l.inner.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if _, err := peer(conn, uint32(os.Geteuid())); err == nil {
			return conn, nil
		}
		_ = conn.Close()
	}
}
