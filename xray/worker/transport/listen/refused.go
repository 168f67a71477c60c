package listen

import (
	"bufio"
	"bytes"
	"context"
	golog "log"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"weak"

	"github.com/xtls/xray-core/transport/internet"
)

// RefusalWords are words of Go's servers of HTTP about one connection that they did not take.
var RefusalWords = []string{"http: TLS handshake error from", "http2: server: error reading preface from client"}

// refused has what OnRefused was given, by the settings of the stream. The settings are those of one
// inbound, and live as long.
var refused sync.Map // weak.Pointer[internet.MemoryStreamConfig] to func()

// OnRefused makes the listeners of the stream call count for each connection that they refuse before
// the inbound has it.
func OnRefused(stream *internet.MemoryStreamConfig, count func()) {
	key := weak.Make(stream)
	refused.Store(key, count)
	runtime.AddCleanup(stream, func(key weak.Pointer[internet.MemoryStreamConfig]) { refused.Delete(key) }, key)
}

// Refused returns what OnRefused was given for the stream.
func Refused(stream *internet.MemoryStreamConfig) func() {
	if count, has := refused.Load(weak.Make(stream)); has {
		return count.(func())
	}
	return func() {}
}

// CountRefused makes a server of the stream count the connections that end without a request, and the
// requests that its handler refuses: those of scanners, which do not know its path. The lines of the
// server's log about such connections are left out.
func CountRefused(server *http.Server, stream *internet.MemoryStreamConfig) {
	c := &callers{refused: Refused(stream), state: server.ConnState}
	server.Handler = Counted(c.noting(server.Handler), stream)
	server.ConnContext, server.ConnState = c.begin, c.changed
	server.ErrorLog = golog.New(errorLog{}, "", 0)
}

// callers has the connections of a server that have made no request yet.
type callers struct {
	refused func()
	state   func(net.Conn, http.ConnState) // nil for none
	silent  sync.Map                       // net.Conn to nothing
}

type callerKey struct{}

func (c *callers) begin(ctx context.Context, conn net.Conn) context.Context {
	c.silent.Store(conn, nil)
	return context.WithValue(ctx, callerKey{}, conn)
}

func (c *callers) changed(conn net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		if _, is := c.silent.LoadAndDelete(conn); is {
			c.refused()
		}
	}
	if c.state != nil {
		c.state(conn, state)
	}
}

func (c *callers) noting(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.silent.Delete(r.Context().Value(callerKey{}))
		handler.ServeHTTP(w, r)
	})
}

type errorLog struct{}

func (errorLog) Write(line []byte) (int, error) {
	if slices.ContainsFunc(RefusalWords, func(words string) bool { return bytes.Contains(line, []byte(words)) }) {
		return len(line), nil
	}
	return golog.Writer().Write(line)
}

// Counted counts the requests that the handler of the stream refuses: those of scanners, which do not
// know its path.
func Counted(handler http.Handler, stream *internet.MemoryStreamConfig) http.Handler {
	refused := Refused(stream)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(&countedWriter{w, refused}, r)
	})
}

// countedWriter counts an answer that refuses.
type countedWriter struct {
	http.ResponseWriter
	refused func()
}

func (w *countedWriter) WriteHeader(status int) {
	if status >= http.StatusBadRequest {
		w.refused()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Flush implements http.Flusher.
func (w *countedWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack implements http.Hijacker.
func (w *countedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap is for http.ResponseController.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
