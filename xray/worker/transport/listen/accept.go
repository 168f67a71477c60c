package listen

import (
	"context"
	"net"
	"strings"
	"time"

	xerrors "github.com/xtls/xray-core/common/errors"
)

// acceptPause is how long Accept pauses after an error, which is nearly always that the process has no
// descriptor left. xray-core pauses as long (transport/internet/tcp/hub.go:103).
const acceptPause = 500 * time.Millisecond

// Accept calls serve for each connection of the socket, on a goroutine of its own. It returns once the
// socket is closed. name is that of the carrier, for the log.
func Accept(ctx context.Context, name string, socket net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := socket.Accept()
		switch {
		case err == nil:
			go serve(conn)
		case strings.Contains(err.Error(), "closed"): // of a socket in a mask too
			return err
		default:
			xerrors.LogWarningInner(ctx, err, "failed to accept connections of ", name)
			time.Sleep(acceptPause)
		}
	}
}
