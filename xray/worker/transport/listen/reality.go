package listen

import (
	"context"
	"fmt"
	"net"

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
	return Accept(context.Background(), "REALITY", socket, func(conn net.Conn) {
		if accepted := r.handshake(conn); accepted != nil {
			handle(accepted)
		}
	})
}

// handshake returns nil for a connection that is led to the borrowed site, once that visit is over.
func (r *REALITY) handshake(conn net.Conn) (accepted *goreality.Conn) {
	defer func() {
		if panicked := recover(); panicked != nil {
			xerrors.LogError(context.Background(), fmt.Sprintf("panic in a handshake of REALITY, one connection ended: %v", panicked))
			_ = conn.Close()
			accepted = nil
		}
		if accepted == nil {
			r.refused()
		}
	}()
	accepted, err := goreality.Server(context.Background(), conn, r.config)
	if err != nil {
		xerrors.LogInfo(context.Background(), err.Error())
		return nil
	}
	return accepted
}

// Listen makes a listener of the connections that authenticate themselves.
func (r *REALITY) Listen(socket net.Listener) net.Listener {
	return Handshaking(socket, func(socket net.Listener, hand func(net.Conn)) error {
		return Accept(context.Background(), "REALITY", socket, func(conn net.Conn) {
			if accepted := r.handshake(conn); accepted != nil {
				hand(accepted)
			} else {
				hand(nil)
			}
		})
	})
}
