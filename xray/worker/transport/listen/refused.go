package listen

import (
	"bytes"
	golog "log"
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

// ErrorLog is for the servers of HTTP of the stream. It counts the lines about refused connections,
// and passes the others on to Go's log.
func ErrorLog(stream *internet.MemoryStreamConfig) *golog.Logger {
	return golog.New(errorLog{Refused(stream)}, "", 0)
}

type errorLog struct{ refused func() }

func (l errorLog) Write(line []byte) (int, error) {
	if slices.ContainsFunc(RefusalWords, func(words string) bool { return bytes.Contains(line, []byte(words)) }) {
		l.refused()
		return len(line), nil
	}
	return golog.Writer().Write(line)
}
