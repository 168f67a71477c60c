package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// strangersOnly is a listener on a unix socket that takes no connection of the daemon's own child
// processes. A fallback of an inbound, or telemt's mask, may lead to any socket: without this,
// strangers on the internet could ask the daemon and command it.
type strangersOnly struct{ net.Listener }

// Accept implements net.Listener.
func (l strangersOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if child, err := isOwnChild(conn); err == nil && !child {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// isOwnChild tells whether the process at the other end of a unix socket is a child of this one.
func isOwnChild(conn net.Conn) (bool, error) {
	socket, is := conn.(*net.UnixConn)
	if !is {
		return false, fmt.Errorf("%T is no unix socket", conn)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, err
	}
	var peer *unix.Ucred
	asked := raw.Control(func(descriptor uintptr) {
		peer, err = unix.GetsockoptUcred(int(descriptor), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(asked, err); err != nil {
		return false, err
	}
	parent, err := parentOf(int(peer.Pid))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // it has ended, or is in another namespace: no child of this one
	}
	return parent == os.Getpid(), err
}

// parentOf returns the parent of a process (proc_pid_stat(5)).
func parentOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name stands in parentheses and may have any bytes in it; the state and the parent follow.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat has no parent", pid)
	}
	return strconv.Atoi(string(fields[1]))
}
