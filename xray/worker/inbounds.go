package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/xtls/xray-core/common"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/features/inbound"
	"github.com/xtls/xray-core/proxy"

	"nodeagent/xray/worker/certfiles"
	"nodeagent/xray/worker/guard"
	"nodeagent/xray/worker/inbound/socks"
	"nodeagent/xray/worker/inbound/wireguard"
	"nodeagent/xray/worker/transport/hysteria"
	"nodeagent/xray/worker/unixsocket"
)

// inboundManager is xray-core's inbound manager. When a handler replaces one of the same tag,
// the new one listens before the old one is closed. mu guards all maps. No handler is started
// or closed while mu is held.
type inboundManager struct {
	mu           sync.RWMutex
	handlers     map[string]inbound.Handler
	certificates map[inbound.Handler]certfiles.Adopted
	sockets      map[inbound.Handler]*unixsocket.Socket
	lasts        map[inbound.Handler]lasting
	associations *socks.Associations
	hysteria     *hysteria.Clients
}

func newInboundManager() *inboundManager {
	return &inboundManager{
		handlers: map[string]inbound.Handler{}, certificates: map[inbound.Handler]certfiles.Adopted{},
		sockets:      map[inbound.Handler]*unixsocket.Socket{},
		lasts:        map[inbound.Handler]lasting{},
		associations: socks.NewAssociations(),
		hysteria:     hysteria.NewClients(),
	}
}

// owns records the certificates and the unix socket of a handler, and what of it lasts in a drain. end
// removes them with the handler. socket may be nil.
func (m *inboundManager) owns(h inbound.Handler, certificates certfiles.Adopted, socket *unixsocket.Socket, lasts lasting) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lasts != ends {
		m.lasts[h] = lasts
	}
	if len(certificates) > 0 {
		m.certificates[h] = certificates
	}
	if socket != nil {
		m.sockets[h] = socket
	}
}

// closeWait is how long closeSoon waits for a handler to close. Some handlers wait for their
// connections.
const closeWait = 500 * time.Millisecond

// end closes a handler and removes its certificates and its unix socket. Its open connections
// continue.
func (m *inboundManager) end(h inbound.Handler) error {
	m.mu.Lock()
	own, unixSocket := m.certificates[h], m.sockets[h]
	delete(m.certificates, h)
	delete(m.sockets, h)
	delete(m.lasts, h)
	m.mu.Unlock()
	own.Gone()
	unixSocket.Remove()
	return closeSoon(h)
}

// closeSoon closes a handler. After closeWait it returns nil, and closing continues in the
// background.
func closeSoon(h inbound.Handler) error {
	closed := make(chan error, 1)
	go func() { closed <- closeHandler(h) }()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeWait):
		xerrors.LogWarning(context.Background(), "inbound ", h.Tag(), " takes long to close")
		return nil
	}
}

func closeHandler(h inbound.Handler) error {
	err := h.Close()
	if holder, ok := h.(proxy.GetInbound); ok {
		if guard, ok := holder.GetInbound().(interface{ EndSources() }); ok {
			guard.EndSources()
		}
	}
	// The datagrams of a WireGuard inbound go to its successor now, so none of its streams can
	// continue.
	if inner, ok := guard.Unwrap(h); ok {
		if device, is := inner.(*wireguard.Server); is {
			err = errors.Join(err, device.Close())
		}
	}
	return err
}

func (*inboundManager) Type() any    { return inbound.ManagerType() }
func (*inboundManager) Start() error { return nil }

func (m *inboundManager) Close() error {
	return m.closeAll(func(inbound.Handler) bool { return false })
}

// closeAll closes the inbounds for which keep, which is called while mu is held, returns false.
func (m *inboundManager) closeAll(keep func(inbound.Handler) bool) error {
	handlers, kept := map[string]inbound.Handler{}, map[string]inbound.Handler{}
	m.mu.Lock()
	for tag, h := range m.handlers {
		if keep(h) {
			kept[tag] = h
		} else {
			handlers[tag] = h
		}
	}
	m.handlers = kept
	m.mu.Unlock()
	results := make(chan error, len(handlers))
	for tag, h := range handlers {
		m.associations.End(tag)
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

// AddHandler starts h. Once h listens, it closes the old handler of the same tag, whose open
// connections continue. Handlers that listen on the same abstract unix socket are closed
// first, and started again if h cannot start.
func (m *inboundManager) AddHandler(ctx context.Context, h inbound.Handler) error {
	socket, inWay := m.inWay(h)
	for _, other := range inWay {
		_ = closeSoon(other) // if the name is still in use, h fails to start
	}
	err := startHandler(h)
	if err == nil {
		err = socket.Place()
	}
	if err != nil {
		err = errors.Join(err, m.end(h))
		for _, other := range inWay {
			err = errors.Join(err, startHandler(other))
		}
		return err
	}
	m.mu.Lock()
	old := m.handlers[h.Tag()]
	m.handlers[h.Tag()] = h
	m.mu.Unlock()
	if old != nil {
		socket.Settle()
		if err := m.end(old); err != nil && !slices.Contains(inWay, old) { // only a warning, because h serves
			xerrors.LogWarningInner(ctx, err, "close the inbound that was replaced: ", h.Tag())
		}
	}
	return nil
}

// startHandler starts a handler. A panic in xray-core becomes an error, so that AddHandler can
// start other handlers again.
func startHandler(h inbound.Handler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in xray-core: %v", r)
			xerrors.LogError(context.Background(), err.Error(), "\n", string(debug.Stack()))
		}
	}()
	return h.Start()
}

// inWay returns h's unix socket, or nil, and the handlers that listen on the same abstract
// name: h's predecessor, or a handler that moves to another name in the same change.
func (m *inboundManager) inWay(h inbound.Handler) (*unixsocket.Socket, []inbound.Handler) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	socket := m.sockets[h]
	var others []inbound.Handler
	for _, other := range m.handlers {
		if socket.SameName(m.sockets[other]) {
			others = append(others, other)
		}
	}
	return socket, others
}

// holdsAssociation returns a function that tells whether the inbound has the account of an
// association.
func (m *inboundManager) holdsAssociation(tag string) func(*socks.Association) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if inner, ok := guard.Unwrap(m.handlers[tag]); ok {
		if server, is := inner.(*socks.Server); is {
			return server.Holds
		}
	}
	return func(*socks.Association) bool { return false }
}

// letGo undoes hold.
func (m *inboundManager) letGo(tag string) inbound.Handler {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.handlers[tag]
	delete(m.handlers, tag)
	return h
}

// hold registers a handler without starting it, for a dry run or to be started later.
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
	m.associations.End(tag)
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
