package coreclient

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A connection that a NAT dropped without telling is found 30 seconds after Core was heard last, also where
// something was sent on it (tcp(7), TCP_USER_TIMEOUT). The kernel asks Core's kernel.
const (
	aliveAfter = 15 * time.Second // without traffic until the first question
	aliveEvery = 5 * time.Second
	aliveTries = 3
	deadAfter  = aliveAfter + aliveTries*aliveEvery
)

func dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: aliveAfter, Interval: aliveEvery, Count: aliveTries},
		Control: func(_, _ string, c syscall.RawConn) error {
			var refused error
			err := c.Control(func(fd uintptr) {
				refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
			})
			return errors.Join(err, refused)
		},
	}
}
