package guard

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/transport"
)

// aloneWriter fails where two goroutines write at the same time.
type aloneWriter struct {
	t       *testing.T
	writing atomic.Int32
	writes  int
	closed  bool
}

func (w *aloneWriter) WriteMultiBuffer(mb buf.MultiBuffer) error {
	if w.writing.Add(1) != 1 {
		w.t.Error("two streams write at the same time")
	}
	w.writes++
	w.writing.Add(-1)
	buf.ReleaseMulti(mb)
	return nil
}

func (w *aloneWriter) Close() error { w.closed = true; return nil }

// streams is a dispatcher that writes to each link as several streams of one connection do.
type streams struct{ routing.Dispatcher }

func (streams) DispatchLink(_ context.Context, _ net.Destination, link *transport.Link) error {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				_ = link.Writer.WriteMultiBuffer(nil)
			}
		})
	}
	all.Wait()
	return link.Writer.(interface{ Close() error }).Close()
}

// The streams of a connection write one after the other.
func TestStreamsOfAConnection(t *testing.T) {
	inner := &aloneWriter{t: t}
	d := &watchedDispatcher{Dispatcher: streams{}}
	err := d.DispatchLink(t.Context(), net.TCPDestination(net.DomainAddress("v1.mux.cool"), 9527), &transport.Link{Writer: inner})
	if err != nil {
		t.Fatal(err)
	}
	if inner.writes != 8000 || !inner.closed {
		t.Errorf("%d writes came through, and closed is %v", inner.writes, inner.closed)
	}
	for _, other := range []net.Destination{{}, net.TCPDestination(net.LocalHostIP, 9527), net.TCPDestination(net.DomainAddress("mux.test"), 9527)} {
		if carriesStreams(other) {
			t.Errorf("%s carries several streams", other)
		}
	}
}
