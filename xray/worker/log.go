package worker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	xlog "github.com/xtls/xray-core/common/log"

	"nodeagent/internal/descriptors"
)

// lineLog tells xray-core's warnings and errors. xray-core calls it on the
// path of the traffic, so the less severe messages, which come with every
// connection, are dropped before they are formatted.
type lineLog struct {
	tell      func(line string) // must not block
	mu        sync.Mutex
	exhausted string // see takeExhausted
}

// unsaid are words of xray-core's about what is as it should be.
var unsaid = []string{
	"ignoring invalid OCSP",          // nobody asked for an answer: see certificateFiles
	"failed to serve HTTP for XHTTP", // it is not to: see borrowHandler
	"failed to serve http for WebSocket",
	`"X-Forwarded-For" from`, // that is not believed: any client could write such lines
}

func (l *lineLog) Handle(message xlog.Message) {
	general, ok := message.(*xlog.GeneralMessage)
	if !ok || general.Severity > xlog.Severity_Warning {
		return
	}
	line := strings.ReplaceAll(fmt.Sprintf("%v", general.Content), "\n", " | ")
	if slices.ContainsFunc(unsaid, func(words string) bool { return strings.Contains(line, words) }) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err, ok := general.Content.(error); ok {
		l.exhausted = cmp.Or(descriptors.Explain(err), l.exhausted)
	}
	l.tell(strings.ToLower(general.Severity.String()) + ": " + line)
}

// takeExhausted returns what descriptors.Explain says of a message that came since the last
// call, as of a listener that could not accept a connection; empty where none came.
func (l *lineLog) takeExhausted() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.exhausted
	l.exhausted = ""
	return text
}
