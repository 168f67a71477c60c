package worker

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	xerrors "github.com/xtls/xray-core/common/errors"
	"golang.org/x/sys/unix"
)

const (
	// unixWait is how long a change waits for a unix socket.
	unixWait = 200 * time.Millisecond
	// unixPatience is how long the socket of another listener is waited for.
	unixPatience = time.Minute
	unixRetry    = 10 * time.Millisecond
)

// takeOver listens on a unix socket. Where a listener has it that this one is to
// replace, which closes only when this one has started, it goes on by itself.
func (l *grpcListener) takeOver(ctx context.Context) error {
	result := make(chan error, 1)
	go func() { result <- l.awaitUnix(context.WithoutCancel(ctx)) }()
	select {
	case err := <-result:
		return err
	case <-time.After(unixWait):
	}
	go func() {
		if err := <-result; err != nil {
			xerrors.LogErrorInner(ctx, err, "the unix socket did not become free")
		}
	}()
	return nil
}

// awaitUnix waits in xray-core for the other listener's lock, which that one gives up
// before the socket, and for the socket.
func (l *grpcListener) awaitUnix(ctx context.Context) error {
	err := l.listen(ctx)
	for deadline := time.Now().Add(unixPatience); errors.Is(err, unix.EADDRINUSE) && !l.isLeftOver() && !l.isClosed() && time.Now().Before(deadline); {
		time.Sleep(unixRetry)
		err = l.listen(ctx)
	}
	return err
}

// isLeftOver tells whether nobody listens on the unix socket that is there.
func (l *grpcListener) isLeftOver() bool {
	path, _, _ := strings.Cut(l.address.String(), ",") // its mode
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}
