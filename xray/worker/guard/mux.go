package guard

import (
	"sync"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport"
)

// carriesStreams reports whether a client asks for a connection that carries several streams: it names this
// domain then (xray-core's common/mux/client.go:185).
func carriesStreams(destination net.Destination) bool {
	return destination.Address != nil && destination.Address.Family().IsDomain() && destination.Address.Domain() == "v1.mux.cool"
}

// oneWriter lets the streams of a connection write one after the other. xray-core has a goroutine for each
// stream, and all of them write to the link of the connection (common/mux/server.go:260 and 285). A link
// that leads right to a connection can't take that: buf.BufferToBytesWriter keeps what it writes in one
// cache, and Shadowsocks encrypts into one buffer.
type oneWriter struct {
	buf.Writer
	mu sync.Mutex
}

// oneAtATime returns a link for several streams.
func oneAtATime(link *transport.Link) *transport.Link {
	return &transport.Link{Reader: link.Reader, Writer: &oneWriter{Writer: link.Writer}}
}

// WriteMultiBuffer implements buf.Writer.
func (w *oneWriter) WriteMultiBuffer(mb buf.MultiBuffer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Writer.WriteMultiBuffer(mb)
}

// Interrupt implements common.Interruptible. It does not wait for a write.
func (w *oneWriter) Interrupt() { _ = common.Interrupt(w.Writer) }

// Close implements common.Closable. It does not wait for a write.
func (w *oneWriter) Close() error { return common.Close(w.Writer) }
