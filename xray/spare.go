package xray

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/logkey"
	"nodeagent/xray/state"
)

// spares are sockets of the daemon that listen on the TCP ports of the worker, behind the worker's own:
// the kernel gives each connection to the first socket of a port as long as there is one
// (SO_ATTACH_REUSEPORT_CBPF, socket(7)), and the sockets of a worker that dies are gone at once. Then
// connections wait in the spare, and none is refused. Where the next worker listens, the spare is closed,
// and the kernel moves to the worker what has waited (net.ipv4.tcp_migrate_req). Without that setting
// there are no spares: the kernel would reset what has waited.
//
// They belong to the goroutine of Run.
type spares struct {
	log    *slog.Logger
	worker *workerClient // behind whose sockets they are
	open   map[state.Binding]*net.TCPListener
	// waiting is since when connections wait in a spare although the worker seems to listen.
	waiting map[state.Binding]time.Time
	// strays counts how often in a row a connection came to a spare although the worker listens.
	strays map[state.Binding]int
	alone  time.Time // since when no worker runs; zero while one does
}

const (
	// maxSpares bounds the spares: each is a file descriptor.
	maxSpares = 1000
	// strayEvery is how often the spares are looked at, and how long a connection waits at least in a spare
	// before it is a stray: the end of a worker is known by then, after which connections wait there by right.
	strayEvery = time.Second
	// maxStrays is after how many looks with a stray a spare is given up: its socket and the
	// worker's are not of one group, as where another option of the socket differs.
	maxStrays = 3
	// spareWait is how long connections wait in a spare for a worker. It is longer than the longest
	// wait before a worker is started again (backoffMax), and after it clients learn that they are
	// not served.
	spareWait = time.Minute
)

// migrateRequests is net.ipv4.tcp_migrate_req (ip-sysctl, Linux 5.14).
const migrateRequests = "/proc/sys/net/ipv4/tcp_migrate_req"

func newSpares(log *slog.Logger) *spares {
	return &spares{log: log, open: map[state.Binding]*net.TCPListener{}, waiting: map[state.Binding]time.Time{}, strays: map[state.Binding]int{}}
}

// keep opens the spares of what the worker runs, and closes all others. Without a worker it opens none:
// connections wait in those of the ports that the next worker is to have, for spareWait at the most.
// Call it once the worker listens. runs is what the worker runs, or without one what the next is to run.
func (s *spares) keep(w *workerClient, runs state.State) {
	if w == nil {
		s.keepAlone(runs)
		return
	}
	s.alone = time.Time{}
	if s.worker != w {
		s.closeAll()
		s.worker = w
	}
	wanted := s.wanted(runs)
	s.closeBesides(wanted)
	if len(wanted) == len(s.open) || !migrates() {
		return
	}
	for b := range wanted {
		if s.open[b] != nil {
			continue
		}
		l, err := listenBehind(b)
		if err != nil {
			s.log.Debug("no spare socket: connections are refused while a worker that died is replaced", logkey.Port, b.Port, logkey.Error, err)
			s.strays[b] = maxStrays
			continue
		}
		s.open[b] = l
	}
}

func (s *spares) keepAlone(next state.State) {
	if s.alone.IsZero() {
		s.alone = time.Now()
	}
	if len(s.open) > 0 && time.Since(s.alone) > spareWait {
		s.log.Warn("no worker has come: clients that wait for one are refused from now on", logkey.Timeout, spareWait)
		s.closeAll()
	}
	if len(s.open) > 0 {
		clear(s.strays) // a spare that has a connection now is of use
		s.closeBesides(s.wanted(next))
	}
}

// wanted are the ports of a state that get a spare.
func (s *spares) wanted(of state.State) map[state.Binding]bool {
	wanted := map[state.Binding]bool{}
	for tag, in := range of.Inbounds {
		if len(wanted) >= maxSpares || !sparable(in) {
			continue
		}
		for _, b := range state.BindingsOf(state.State{Inbounds: map[string]state.Inbound{tag: in}}) {
			if b.Network == "tcp" && len(wanted) < maxSpares && s.strays[b] < maxStrays {
				wanted[b] = true
			}
		}
	}
	return wanted
}

func (s *spares) closeBesides(wanted map[state.Binding]bool) {
	for b := range s.open {
		if !wanted[b] {
			s.close(b)
		}
	}
}

// migrates reports whether the kernel moves the connections of a socket that is closed.
func migrates() bool {
	set, err := os.ReadFile(migrateRequests)
	return err == nil && strings.TrimSpace(string(set)) == "1"
}

// sparable reports whether a socket of the same address would be in one group with the inbound's.
func sparable(in state.Inbound) bool {
	var config struct {
		StreamSettings struct {
			Sockopt map[string]json.RawMessage `json:"sockopt"`
		} `json:"streamSettings"`
	}
	if json.Unmarshal(in.Config, &config) != nil {
		return false
	}
	for option := range config.StreamSettings.Sockopt {
		switch strings.ToLower(option) {
		case "interface", "tproxy", "v6only", "customsockopt":
			return false
		}
	}
	return true
}

// listenBehind listens on a port on which the worker listens already. Until the worker's socket goes first,
// the new socket drops every packet (SO_ATTACH_FILTER, socket(7)): a client that connects in this moment sends
// its SYN again after a second, and the worker takes it.
func listenBehind(b state.Binding) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // the kernel takes no filter for such a socket
	config.Control = func(_, _ string, conn syscall.RawConn) error {
		return control(conn, func(fd int) error {
			return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), attach(fd, unix.SO_ATTACH_FILTER))
		})
	}
	listener, err := config.Listen(context.Background(), "tcp", netip.AddrPortFrom(b.Address, b.Port).String())
	if err != nil {
		return nil, fmt.Errorf("listen behind the worker: %w", err)
	}
	tcp := listener.(*net.TCPListener)
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error {
			if err := attach(fd, unix.SO_ATTACH_REUSEPORT_CBPF); err != nil {
				return err
			}
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("let the worker's socket go first: %w", err), tcp.Close())
	}
	return tcp, nil
}

// attach gives a socket a program that returns 0: no byte of a packet as its filter, and the first socket of
// the port as the program of its group.
func attach(fd, option int) error {
	zero := unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &zero)
}

func control(conn syscall.RawConn, do func(fd int) error) (err error) {
	if called := conn.Control(func(fd uintptr) { err = do(int(fd)) }); called != nil {
		return called
	}
	return err
}

// bindings are those of the open spares.
func (s *spares) bindings() []state.Binding {
	all := make([]state.Binding, 0, len(s.open))
	for b := range s.open {
		all = append(all, b)
	}
	return all
}

// release closes the spares of an inbound that w is about to replace or remove: otherwise a spare
// could become the first socket of its port. It closes none behind which w is not: connections may wait
// there for w.
func (s *spares) release(w *workerClient, op state.Operation) {
	if s.worker != w {
		return
	}
	switch op.Kind {
	case state.OpReplaceInbound, state.OpRemoveInbound, state.OpReleaseInbound:
	default:
		return
	}
	for b := range s.open {
		if b.Tag == op.Tag {
			s.close(b)
		}
	}
}

func (s *spares) close(b state.Binding) {
	_ = s.open[b].Close()
	delete(s.open, b)
	delete(s.waiting, b)
}

func (s *spares) closeAll() {
	for b := range s.open {
		s.close(b)
	}
	clear(s.strays)
}

// look closes the spares in which a connection has waited although the worker listens, so that the worker gets
// it. keep opens them again.
func (s *spares) look(w *workerClient) {
	if w == nil || s.worker != w {
		return
	}
	for b, l := range s.open {
		if !waits(l) {
			s.strays[b] = 0
			delete(s.waiting, b)
			continue
		}
		since, seen := s.waiting[b]
		switch {
		case !seen:
			s.waiting[b] = time.Now()
		case time.Since(since) >= strayEvery:
			s.strays[b]++
			s.close(b)
		}
	}
}

// waits reports whether a connection waits in a socket.
func waits(l *net.TCPListener) (is bool) {
	raw, err := l.SyscallConn()
	if err != nil {
		return false
	}
	_ = control(raw, func(fd int) error {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		is = n > 0 && err == nil
		return nil
	})
	return is
}
