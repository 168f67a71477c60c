package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/xtls/xray-core/common"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/features/inbound"
	"github.com/xtls/xray-core/proxy"

	"nodeagent/xray/worker/wireguard"
)

// inboundManager replaces a handler of the same tag with the new listener up
// before the old one goes.
type inboundManager struct {
	mu           sync.RWMutex
	handlers     map[string]inbound.Handler
	certificates map[inbound.Handler]adopted
	listeners    map[inbound.Handler][]listener
}

func newInboundManager() *inboundManager {
	return &inboundManager{
		handlers: map[string]inbound.Handler{}, certificates: map[inbound.Handler]adopted{},
		listeners: map[inbound.Handler][]listener{},
	}
}

// owns notes the certificates that end with the handler.
func (m *inboundManager) owns(h inbound.Handler, certificates adopted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(certificates) > 0 {
		m.certificates[h] = certificates
	}
}

// closeWait bounds the wait for a handler to close. gRPC's server closes its listener
// and then waits for connections that say nothing, up to two minutes.
const closeWait = 500 * time.Millisecond

// end closes a handler, and ends what it owns. Its live connections go on. What takes
// longer than closeWait goes on by itself.
func (m *inboundManager) end(h inbound.Handler) error {
	m.mu.Lock()
	own, sockets := m.certificates[h], m.listeners[h]
	delete(m.certificates, h)
	delete(m.listeners, h)
	m.mu.Unlock()
	own.gone()
	closed := make(chan error, 1)
	go func() { closed <- closeHandler(h) }()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeWait):
		for _, socket := range sockets {
			socket.silence() // it has several, and is still at the first one
		}
		xerrors.LogWarning(context.Background(), "inbound ", h.Tag(), " still waits for connections that say nothing")
		return nil
	}
}

func closeHandler(h inbound.Handler) error {
	err := h.Close()
	if holder, ok := h.(proxy.GetInbound); ok {
		if guard, ok := holder.GetInbound().(interface{ endSources() }); ok {
			guard.endSources()
		}
	}
	// Its datagrams go to the one that took its place: nothing of a device can go on.
	if inner, ok := unguarded(h); ok {
		if device, is := inner.(*wireguard.Server); is {
			err = errors.Join(err, device.Close())
		}
	}
	return err
}

func (*inboundManager) Type() any    { return inbound.ManagerType() }
func (*inboundManager) Start() error { return nil }

func (m *inboundManager) Close() error {
	m.mu.Lock()
	handlers := m.handlers
	m.handlers = map[string]inbound.Handler{}
	m.mu.Unlock()
	results := make(chan error, len(handlers))
	for _, h := range handlers {
		go func() { results <- m.end(h) }()
	}
	var errs []error
	for range handlers {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

func (m *inboundManager) GetHandler(_ context.Context, tag string) (inbound.Handler, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if h, ok := m.handlers[tag]; ok {
		return h, nil
	}
	return nil, common.ErrNoClue
}

// AddHandler is for handlers that listen on nothing.
func (m *inboundManager) AddHandler(ctx context.Context, h inbound.Handler) error {
	return m.start(ctx, h, 0)
}

// start starts h, and once it listens on its TCP ports it closes the handler that had
// its tag, whose live connections go on.
func (m *inboundManager) start(ctx context.Context, h inbound.Handler, ports int) error {
	listeners.record()
	err := h.Start()
	if err == nil {
		listeners.await(ports)
	}
	sockets := listeners.stop()
	if err != nil {
		return errors.Join(err, m.end(h))
	}
	m.mu.Lock()
	old := m.handlers[h.Tag()]
	m.handlers[h.Tag()], m.listeners[h] = h, sockets
	m.mu.Unlock()
	if old != nil {
		if err := m.end(old); err != nil { // the new one serves all the same
			xerrors.LogWarningInner(ctx, err, "close the inbound that was replaced: ", h.Tag())
		}
	}
	return nil
}

// hold keeps a handler that is not to listen: a dry run.
func (m *inboundManager) hold(h inbound.Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handlers[h.Tag()] = h
}

func (m *inboundManager) RemoveHandler(_ context.Context, tag string) error {
	m.mu.Lock()
	h, ok := m.handlers[tag]
	delete(m.handlers, tag)
	m.mu.Unlock()
	if !ok {
		return common.ErrNoClue
	}
	return m.end(h)
}

func (m *inboundManager) ListHandlers(context.Context) []inbound.Handler {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]inbound.Handler, 0, len(m.handlers))
	for _, h := range m.handlers {
		list = append(list, h)
	}
	return list
}
