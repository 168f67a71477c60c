package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/xtls/xray-core/common"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/hysteria/account"
	"github.com/xtls/xray-core/proxy/shadowsocks_2022"
	"github.com/xtls/xray-core/transport/internet/stat"
	"google.golang.org/protobuf/types/known/anypb"
)

// guarded wraps an inbound's proxy settings, so that xray-core makes our guard
// around the proxy: a panic while it handles one connection ends that
// connection and not the process.
func guarded(config *core.InboundHandlerConfig) *core.InboundHandlerConfig {
	settings := config.ProxySettings
	config.ProxySettings = serial.ToTypedMessage(&anypb.Any{TypeUrl: settings.Type, Value: settings.Value})
	return config
}

func registerGuard() error {
	return common.RegisterConfig((*anypb.Any)(nil), func(ctx context.Context, config any) (any, error) {
		wrapped := config.(*anypb.Any)
		settings, err := (&serial.TypedMessage{Type: wrapped.TypeUrl, Value: wrapped.Value}).GetInstance()
		if err != nil {
			return nil, err
		}
		object, err := common.CreateObject(ctx, settings)
		if err != nil {
			return nil, err
		}
		inner, ok := object.(proxy.Inbound)
		if !ok {
			return nil, fmt.Errorf("make inbound: %T is no inbound proxy", object)
		}
		return guardInbound(inner), nil
	})
}

// guardInbound keeps the interfaces that xray-core looks for.
func guardInbound(inner proxy.Inbound) proxy.Inbound {
	guard := &guardedInbound{Inbound: inner}
	_, guard.halfCloses = inner.(*shadowsocks_2022.MultiUserInbound)
	users, hasUsers := inner.(proxy.UserManager)
	if !hasUsers {
		return guard
	}
	withUsers := guardedUsers{guard, users}
	if quic, ok := inner.(hysteriaInbound); ok {
		return &guardedHysteria{withUsers, quic}
	}
	return &withUsers
}

type guardedInbound struct {
	proxy.Inbound
	// halfCloses is for Shadowsocks 2022, which forgets to tell the dispatcher that
	// its client has ended (common/singbridge, PipeConnWrapper): the stream and its
	// connection out would live on for five minutes.
	halfCloses bool
}

type guardedUsers struct {
	*guardedInbound
	proxy.UserManager
}

type hysteriaInbound interface {
	HysteriaInboundValidator() *account.Validator
}

type guardedHysteria struct {
	guardedUsers
	hysteriaInbound
}

func (g *guardedInbound) Close() error { return common.Close(g.Inbound) }

func (g *guardedInbound) Process(ctx context.Context, network net.Network, conn stat.Connection, d routing.Dispatcher) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.Join(errPanic, fmt.Errorf("%v", r))
			xerrors.LogError(ctx, err.Error(), "\n", string(debug.Stack()))
		}
	}()
	if g.halfCloses && network == net.Network_TCP {
		ended := &upEnd{writers: map[io.Closer]struct{}{}}
		defer ended.end()
		ctx, conn = context.WithValue(ctx, upEndKey{}, ended), &endingConn{conn, ended}
	}
	return g.Inbound.Process(ctx, network, conn, d)
}

// upEnd closes the way up of a connection's streams once its client has ended.
type upEnd struct {
	mu      sync.Mutex
	ended   bool
	writers map[io.Closer]struct{} // of the streams that are open
}

type upEndKey struct{}

// closes takes a writer that ends with the client.
func (u *upEnd) closes(w io.Closer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		_ = w.Close()
		return
	}
	u.writers[w] = struct{}{}
}

// forgets takes a writer whose stream has ended.
func (u *upEnd) forgets(w io.Closer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.writers, w)
}

func (u *upEnd) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	for w := range u.writers {
		_ = w.Close()
	}
}

// endingConn tells when nothing more can be read from it.
type endingConn struct {
	stat.Connection
	up *upEnd
}

func (c *endingConn) Read(p []byte) (int, error) {
	n, err := c.Connection.Read(p)
	if err != nil && n == 0 { // else what was read is on its way still, and the next read says so again
		c.up.end()
	}
	return n, err
}

var errPanic = errors.New("panic in an inbound, one connection ended")
