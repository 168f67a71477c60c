package features

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/transport"

	"nodeagent/internal/counters"
	"nodeagent/xray/worker/traffic"
)

// Outbounds replaces a handler of the same tag in one step, so that no
// request falls between, and its default is a tag, not whatever came first.
type Outbounds struct {
	mu         sync.RWMutex
	handlers   map[string]*countedOutbound
	defaultTag string
}

// NewOutbounds makes a manager without handlers.
func NewOutbounds() *Outbounds {
	return &Outbounds{handlers: map[string]*countedOutbound{}}
}

// NewCountedOutbound counts in slot what passes through handler.
func NewCountedOutbound(handler outbound.Handler, slot *counters.Slot) *countedOutbound {
	return &countedOutbound{Handler: handler, slot: slot}
}

// Put makes h the handler of its tag. Streams that run through the old one go on to
// their end; it is closed after the last of them.
func (m *Outbounds) Put(h *countedOutbound) {
	m.mu.Lock()
	old := m.handlers[h.Tag()]
	m.handlers[h.Tag()] = h
	if m.defaultTag == "" {
		m.defaultTag = h.Tag()
	}
	m.mu.Unlock()
	if old != nil {
		old.retire()
	}
}

// SetDefault makes the handler of that tag the one for streams that no rule names.
func (m *Outbounds) SetDefault(tag string) {
	m.mu.Lock()
	m.defaultTag = tag
	m.mu.Unlock()
}

// Remove takes the handler of that tag away. Streams that run through it go on to their end.
func (m *Outbounds) Remove(tag string) {
	m.mu.Lock()
	old := m.handlers[tag]
	delete(m.handlers, tag)
	m.mu.Unlock()
	if old != nil {
		old.retire()
	}
}

// Type is the feature of xray-core that Outbounds is.
func (*Outbounds) Type() any { return outbound.ManagerType() }

// Start does nothing: each handler is started before it is put.
func (*Outbounds) Start() error { return nil }

// Close retires all handlers.
func (m *Outbounds) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.handlers {
		h.retire()
	}
	return nil
}

// GetHandler returns a nil interface, not a nil pointer, where there is none.
func (m *Outbounds) GetHandler(tag string) outbound.Handler {
	m.mu.RLock()
	defer m.mu.RUnlock()
	h, ok := m.handlers[tag]
	switch {
	case !ok:
		return nil
	case h.slot == nil:
		return h.Handler
	}
	return h
}

// GetDefaultHandler returns the default handler; a nil interface where there is none.
func (m *Outbounds) GetDefaultHandler() outbound.Handler {
	m.mu.RLock()
	tag := m.defaultTag
	m.mu.RUnlock()
	return m.GetHandler(tag)
}

// AddHandler takes a handler that xray-core makes itself (VLESS reverse) and asks for
// again, as what it is. It has no counter slot.
func (m *Outbounds) AddHandler(_ context.Context, h outbound.Handler) error {
	if err := h.Start(); err != nil {
		return err
	}
	m.Put(&countedOutbound{Handler: h})
	return nil
}

// RemoveHandler is Remove for xray-core itself. It returns common.ErrNoClue where no handler
// has the tag.
func (m *Outbounds) RemoveHandler(_ context.Context, tag string) error {
	if m.GetHandler(tag) == nil {
		return common.ErrNoClue
	}
	m.Remove(tag)
	return nil
}

// ListHandlers returns all handlers, in no order.
func (m *Outbounds) ListHandlers(context.Context) []outbound.Handler {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]outbound.Handler, 0, len(m.handlers))
	for _, h := range m.handlers {
		list = append(list, h)
	}
	return list
}

// Select returns the tags that begin with one of the prefixes, for balancers
// and the observatory.
func (m *Outbounds) Select(prefixes []string) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var tags []string
	for tag := range m.handlers {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(tag, p) }) {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return tags
}

// countedOutbound counts what passes through a handler.
type countedOutbound struct {
	outbound.Handler
	slot *counters.Slot // nil for one that is not counted, nor dispatched to by this

	mu      sync.Mutex
	streams int
	retired bool
}

// Dispatch sends a stream out and returns at its end.
func (o *countedOutbound) Dispatch(ctx context.Context, link *transport.Link) {
	o.mu.Lock()
	o.streams++
	o.mu.Unlock()
	defer o.streamEnded()

	if s := traffic.StreamFrom(ctx); s == nil || !s.AttachOutbound(o.slot) {
		// The second leg of a chain (dialerProxy), or a stream of xray-core's
		// own: nobody counts it yet.
		link.Reader = &countingReader{Reader: link.Reader, count: &o.slot.Up}
		link.Writer = &countingWriter{Writer: link.Writer, count: &o.slot.Down}
	}
	o.Handler.Dispatch(ctx, link)
}

func (o *countedOutbound) streamEnded() {
	o.mu.Lock()
	o.streams--
	idle := o.retired && o.streams == 0
	o.mu.Unlock()
	if idle {
		_ = o.Close()
	}
}

// retireAfter is how long a handler waits for a stream that has chosen it and has not
// begun.
const retireAfter = 10 * time.Second

// retire closes the handler once its last stream has ended.
func (o *countedOutbound) retire() {
	time.AfterFunc(retireAfter, func() {
		o.mu.Lock()
		idle := !o.retired && o.streams == 0
		o.retired = true
		o.mu.Unlock()
		if idle {
			_ = o.Close()
		}
	})
}

type adder interface{ Add(delta uint64) uint64 }

type countingReader struct {
	buf.Reader
	count adder
}

func (r *countingReader) ReadMultiBuffer() (buf.MultiBuffer, error) {
	mb, err := r.Reader.ReadMultiBuffer()
	r.count.Add(uint64(mb.Len()))
	return mb, err
}

func (r *countingReader) Interrupt() { common.Interrupt(r.Reader) }

type countingWriter struct {
	buf.Writer
	count adder
}

func (w *countingWriter) WriteMultiBuffer(mb buf.MultiBuffer) error {
	w.count.Add(uint64(mb.Len()))
	return w.Writer.WriteMultiBuffer(mb)
}

func (w *countingWriter) Close() error { return common.Close(w.Writer) }
func (w *countingWriter) Interrupt()   { common.Interrupt(w.Writer) }
