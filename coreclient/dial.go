package coreclient

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A connection that a NAT dropped without telling is found 30 seconds after Core was heard last, also where
// something was sent on it (tcp(7), TCP_USER_TIMEOUT). The kernel asks the host at the other end of the connection,
// which is Core's or a balancer's.
const (
	aliveAfter = 15 * time.Second // without traffic until the first question
	aliveEvery = 5 * time.Second
	aliveTries = 3
	deadAfter  = aliveAfter + aliveTries*aliveEvery
)

// setOption is replaced by tests.
var setOption = unix.SetsockoptInt

func dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: aliveAfter, Interval: aliveEvery, Count: aliveTries},
		Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				// A sandbox may refuse it. Keepalives and pings find such a connection too, later.
				_ = setOption(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
			})
		},
	}
}
