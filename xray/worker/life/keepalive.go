package life

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/xtls/xray-core/transport/internet"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// The keepalive of accepted connections, in seconds: a peer that is gone is noticed after 70
// of them. The members tcpKeepAliveIdle and tcpKeepAliveInterval of an inbound's sockopt win;
// a negative one turns keepalive off, as in Xray.
const (
	keepIdle     = 30
	keepInterval = 10
	keepCount    = 4
)

// Register makes all listeners of this process set keepalive, and teaches protobuf the mask
// that New makes. It is called once.
func Register() error {
	return errors.Join(internet.RegisterListenerController(keepAlive), protoregistry.GlobalTypes.RegisterMessage(maskMessages))
}

// keepAlive sets keepalive on a TCP socket before it listens. The sockets that it accepts
// inherit it: xray-core sets none on them where sockopt names none
// (transport/internet/system_listener.go:91). What sockopt names, xray-core sets after this
// (system_listener.go:29).
func keepAlive(network, address string, socket syscall.RawConn) error {
	if !enabled || !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var failed error
	err := socket.Control(func(fd uintptr) { failed = setKeepAlive(int(fd), keepIdle, keepInterval, keepCount) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("set keepalive on %s: %w", address, err)
	}
	return nil
}

func setKeepAlive(fd, idle, interval, count int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, interval),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count),
	)
}
