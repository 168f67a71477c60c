package guard

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/xtls/xray-core/common"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/inbound"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/transport/internet/stat"
	"google.golang.org/protobuf/types/known/anypb"

	"nodeagent/xray/worker/datagrams"
)

// Wrap wraps an inbound's proxy settings, so that xray-core makes our guard
// around the proxy: a panic while it handles one connection ends that
// connection and not the process.
func Wrap(config *core.InboundHandlerConfig) *core.InboundHandlerConfig {
	settings := config.ProxySettings
	config.ProxySettings = serial.ToTypedMessage(&anypb.Any{TypeUrl: settings.Type, Value: settings.Value})
	return config
}

// Register teaches xray-core to make guarded inbounds. makeInbound makes the proxy inside
// from its settings. The table is process-wide, so Register is called once.
func Register(makeInbound func(ctx context.Context, settings any) (proxy.Inbound, error)) error {
	return common.RegisterConfig((*anypb.Any)(nil), func(ctx context.Context, config any) (any, error) {
		wrapped := config.(*anypb.Any)
		settings, err := (&serial.TypedMessage{Type: wrapped.TypeUrl, Value: wrapped.Value}).GetInstance()
		if err != nil {
			return nil, err
		}
		inner, err := makeInbound(ctx, settings)
		if err != nil {
			return nil, err
		}
		return wrapInbound(inner), nil
	})
}

// Unwrap is the proxy that a handler has behind our guard.
func Unwrap(handler inbound.Handler) (proxy.Inbound, bool) {
	holder, ok := handler.(proxy.GetInbound)
	if !ok {
		return nil, false
	}
	switch guard := holder.GetInbound().(type) {
	case *wrapped:
		return guard.Inbound, true
	case *wrappedWithUsers:
		return guard.Inbound, true
	default:
		return guard, true
	}
}

// wrapInbound keeps the interfaces that xray-core looks for.
func wrapInbound(inner proxy.Inbound) proxy.Inbound {
	guard := &wrapped{Inbound: inner}
	users, hasUsers := inner.(proxy.UserManager)
	if !hasUsers {
		return guard
	}
	return &wrappedWithUsers{guard, users}
}

type wrapped struct {
	proxy.Inbound

	// The sources of datagrams that are served. xray-core closes an inbound's socket
	// and leaves those who read of it waiting for ever (app/proxyman/inbound/worker.go).
	mu      sync.Mutex
	ended   bool
	sources map[stat.Connection]struct{}
	closed  bool // since Start
}

// begin notes a source, and tells whether it may be served.
func (g *wrapped) begin(source stat.Connection) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	if g.sources == nil {
		g.sources = map[stat.Connection]struct{}{}
	}
	g.sources[source] = struct{}{}
	return true
}

func (g *wrapped) done(source stat.Connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sources, source)
}

// EndSources ends what comes in datagrams, now and later.
func (g *wrapped) EndSources() {
	g.mu.Lock()
	sources := g.sources
	g.sources, g.ended = nil, true
	g.mu.Unlock()
	for source := range sources {
		_ = source.Close()
	}
}

type wrappedWithUsers struct {
	*wrapped
	proxy.UserManager
}

// Start starts a proxy that listens by itself, as TUN's does
// (app/proxyman/inbound/always.go:176).
func (g *wrapped) Start() error {
	g.mu.Lock()
	g.closed = false
	g.mu.Unlock()
	if own, listens := g.Inbound.(common.Runnable); listens {
		return own.Start()
	}
	return nil
}

// Close closes the proxy, once after each Start. xray-core calls it for each of the inbound's sockets and for the
// inbound (app/proxyman/inbound/worker.go:157, always.go:196), and VLESS makes a list of all its clients each time
// (proxy/vless/inbound/inbound.go, Handler.Close).
func (g *wrapped) Close() error {
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	g.mu.Unlock()
	if closed {
		return nil
	}
	return common.Close(g.Inbound)
}

func (g *wrapped) Process(ctx context.Context, network net.Network, conn stat.Connection, d routing.Dispatcher) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.Join(errPanic, fmt.Errorf("%v", r))
			xerrors.LogError(ctx, err.Error(), "\n", string(debug.Stack()))
		}
	}()
	if network == net.Network_UDP {
		if !g.begin(conn) {
			return nil
		}
		defer g.done(conn)
		conn = datagrams.Whole(conn)
	} else {
		growStack(0)
	}
	watched := &watchedDispatcher{Dispatcher: d}
	if err = g.Inbound.Process(ctx, network, conn, watched); err != nil && !watched.used.Load() {
		refused(ctx)
	}
	return err
}

var errPanic = errors.New("panic in an inbound, one connection ended")
