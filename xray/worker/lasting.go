package worker

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/xtls/xray-core/features/inbound"

	"nodeagent/xray/worker/transport/mkcp"
)

// lasting says what of an inbound goes on in a worker that drains.
type lasting int

const (
	// ends is for inbounds whose connections live without their listener.
	ends lasting = iota
	// lastsByID is for listeners of QUIC: their connections live in their sockets, and new ones are passed
	// to the next worker by connection ids (package relay).
	lastsByID
	// lastsBySource is for sockets of datagrams that are passed by their source. Listeners of TCP beside
	// them close.
	lastsBySource
)

// drain closes all inbounds but what goes on; keeps says for which kinds that can be.
func (m *inboundManager) drain(keeps map[lasting]bool) error {
	var beside []inbound.Handler
	err := m.closeAll(func(h inbound.Handler) bool {
		kind := m.lasts[h]
		if keeps[kind] && kind == lastsBySource {
			beside = append(beside, h)
		}
		return keeps[kind]
	})
	for _, h := range beside {
		if failed := closeStreams(h); failed != nil { // a listener that takes connections would lose them
			err = errors.Join(err, failed, m.RemoveHandler(context.Background(), h.Tag()))
		}
	}
	return err
}

// closeStreams closes the listeners of an inbound but those of datagrams.
func closeStreams(h inbound.Handler) error {
	workers, err := listenersOf(h)
	if err != nil {
		return err
	}
	var errs []error
	kept := reflect.MakeSlice(workers.Type(), 0, workers.Len())
	for i := range workers.Len() {
		listener := workers.Index(i)
		if name := listener.Elem().Type().Elem().Name(); name == "udpWorker" || overMKCP(listener) {
			kept = reflect.Append(kept, listener)
			continue
		}
		if closer, is := reflect.TypeAssert[interface{ Close() error }](listener); is {
			errs = append(errs, closer.Close())
		}
	}
	workers.Set(kept) // so that the handler closes no listener twice
	return errors.Join(errs...)
}

// overMKCP reports whether a listener of streams is one over mKCP.
func overMKCP(listener reflect.Value) bool {
	hub := listener.Elem().Elem().FieldByName("hub")
	return hub.IsValid() && hub.Kind() == reflect.Interface && !hub.IsNil() && hub.Elem().Type() == reflect.TypeFor[*mkcp.Listener]()
}

// listenersOf returns the listeners of a handler of xray-core's, which it does not export
// (app/proxyman/inbound/always.go:52).
func listenersOf(h inbound.Handler) (workers reflect.Value, err error) {
	value := reflect.ValueOf(h)
	if value.Kind() == reflect.Pointer && value.Elem().Kind() == reflect.Struct {
		if workers = value.Elem().FieldByName("workers"); workers.IsValid() && workers.Kind() == reflect.Slice {
			return reflect.NewAt(workers.Type(), workers.Addr().UnsafePointer()).Elem(), nil
		}
	}
	return workers, fmt.Errorf("inbound %q is a %T, whose listeners are not known", h.Tag(), h)
}

// serves reports whether the worker has something that a drain waits for: streams, associations of SOCKS,
// whose next datagram makes a stream, and connections over mKCP, which send their last bytes after their
// stream has ended.
func (in *instance) serves() bool {
	return in.clients.Streams.Load() > 0 || in.inbounds.associations.Open() > 0 || mkcp.Open() > 0
}
