package features

import (
	"context"
	"sync/atomic"

	"github.com/xtls/xray-core/app/router"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/dns"
	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/features/routing"
)

// Router is xray-core's router behind one pointer. Rules are never changed
// in place: PickRoute takes no lock there, and a reload leaves a window without
// rules. A whole new router takes the old one's place.
type Router struct {
	ctx        context.Context
	dns        dns.Client
	outbounds  outbound.Manager
	dispatcher routing.Dispatcher
	current    atomic.Pointer[router.Router]
}

// NewRouter makes a router without rules, once the features that it needs are there.
func NewRouter(ctx context.Context) (*Router, error) {
	r := &Router{ctx: ctx}
	return r, core.RequireFeatures(r.ctx, func(d dns.Client, o outbound.Manager, disp routing.Dispatcher) error {
		r.dns, r.outbounds, r.dispatcher = d, o, disp
		return r.Replace(&router.Config{})
	})
}

// Replace makes config the rules of every stream from now on; on an error the
// old rules stay.
func (r *Router) Replace(config *router.Config) error {
	next := new(router.Router)
	if err := next.Init(r.ctx, config, r.dns, r.outbounds, r.dispatcher); err != nil {
		return err
	}
	if old := r.current.Swap(next); old != nil {
		return old.Close()
	}
	return nil
}

// Type is the feature of xray-core that Router is.
func (*Router) Type() any { return routing.RouterType() }

// Start does nothing.
func (*Router) Start() error { return nil }

// Close closes the router that is in place.
func (r *Router) Close() error { return r.current.Load().Close() }

// PickRoute chooses the outbound of a stream by the rules that are in place.
func (r *Router) PickRoute(ctx routing.Context) (routing.Route, error) {
	return r.current.Load().PickRoute(ctx)
}

// AddRule adds a rule to the router that is in place. Nothing here uses it.
func (r *Router) AddRule(config *serial.TypedMessage, shouldAppend bool) error {
	return r.current.Load().AddRule(config, shouldAppend)
}

// RemoveRule removes a rule from the router that is in place. Nothing here uses it.
func (r *Router) RemoveRule(tag string) error { return r.current.Load().RemoveRule(tag) }

// ListRule returns the rules that are in place.
func (r *Router) ListRule() []routing.Route { return r.current.Load().ListRule() }
