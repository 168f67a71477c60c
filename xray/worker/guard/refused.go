package guard

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/transport"
)

// refusals counts, by the tag of the inbound, the connections that ended with an error before they
// asked for anything: those of scanners, with garbage or wrong credentials. It is the process's,
// as xray-core's table of inbounds is.
var refusals sync.Map // string to *atomic.Int64

func refused(ctx context.Context) {
	if in := session.InboundFromContext(ctx); in != nil {
		Refuse(in.Tag)
	}
}

// Refuse counts a connection that was refused, on the inbound with the tag. The tag is empty for a
// server of HTTP that is no inbound's.
func Refuse(tag string) {
	count, has := refusals.Load(tag)
	if !has {
		count, _ = refusals.LoadOrStore(tag, &atomic.Int64{})
	}
	count.(*atomic.Int64).Add(1)
}

// Refused returns how many connections were refused since the worker started, by the tag of the
// inbound; nil for none.
func Refused() map[string]int64 {
	var all map[string]int64
	refusals.Range(func(tag, count any) bool {
		if all == nil {
			all = map[string]int64{}
		}
		all[tag.(string)] = count.(*atomic.Int64).Load()
		return true
	})
	return all
}

// watchedDispatcher notes whether a connection asked for anything.
type watchedDispatcher struct {
	routing.Dispatcher
	used atomic.Bool
}

// Dispatch implements routing.Dispatcher.
func (d *watchedDispatcher) Dispatch(ctx context.Context, destination net.Destination) (*transport.Link, error) {
	d.used.Store(true)
	return d.Dispatcher.Dispatch(ctx, destination)
}

// DispatchLink implements routing.Dispatcher.
func (d *watchedDispatcher) DispatchLink(ctx context.Context, destination net.Destination, link *transport.Link) error {
	d.used.Store(true)
	if carriesStreams(destination) {
		link = oneAtATime(link)
	}
	return d.Dispatcher.DispatchLink(ctx, destination, link)
}
