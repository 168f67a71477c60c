package listen

import (
	"context"
	"fmt"
	"net"
	"sync"

	goreality "github.com/xtls/reality"

	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/transport/internet/reality"
)

// REALITY authenticates connections, and leads strangers to the borrowed site, within the bounds of
// visitors.
type REALITY struct {
	config  *goreality.Config
	refused func()
}

// NewREALITY calls refused for each connection that it leads to the borrowed site.
func NewREALITY(config *reality.Config, refused func()) *REALITY {
	r := &REALITY{config.GetREALITYConfig(), refused}
	dial := r.config.DialContext
	r.config.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newVisit(conn), nil
	}
	go goreality.DetectPostHandshakeRecordsLens(r.config)
	return r
}

// Accept calls handle for each connection of the socket that authenticates itself, on a goroutine of
// its own. It returns once the socket is closed.
func (r *REALITY) Accept(socket net.Listener, handle func(*goreality.Conn)) error {
	return Accept(context.Background(), "REALITY", socket, func(conn net.Conn) { r.serve(conn, handle) })
}

func (r *REALITY) serve(conn net.Conn, handle func(*goreality.Conn)) {
	var accepted *goreality.Conn
	func() {
		defer func() {
			if panicked := recover(); panicked != nil {
				xerrors.LogError(context.Background(), fmt.Sprintf("panic in a handshake of REALITY, one connection ended: %v", panicked))
				_ = conn.Close()
			}
		}()
		var err error
		if accepted, err = goreality.Server(context.Background(), conn, r.config); err != nil {
			accepted = nil
			xerrors.LogInfo(context.Background(), err.Error())
		}
	}()
	if accepted == nil {
		r.refused()
		return
	}
	handle(accepted)
}

// realityListener has the connections that have authenticated themselves.
type realityListener struct {
	net.Listener
	conns chan net.Conn
	ended chan struct{}
	err   error // after ended
	close func() error
}

// Listen makes a listener of the connections that authenticate themselves.
func (r *REALITY) Listen(socket net.Listener) net.Listener {
	closed := make(chan struct{})
	l := &realityListener{Listener: socket, conns: make(chan net.Conn), ended: make(chan struct{})}
	l.close = sync.OnceValue(func() error { close(closed); return socket.Close() })
	go func() {
		l.err = r.Accept(socket, func(conn *goreality.Conn) {
			select {
			case l.conns <- conn:
			case <-closed:
				_ = conn.Close()
			}
		})
		close(l.ended)
	}()
	return l
}

func (l *realityListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.ended:
		return nil, l.err
	}
}

func (l *realityListener) Close() error { return l.close() }
