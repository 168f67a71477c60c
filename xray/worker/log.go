package worker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	xlog "github.com/xtls/xray-core/common/log"

	"nodeagent/internal/descriptors"
	"nodeagent/xray/worker/guard"
	"nodeagent/xray/worker/transport/listen"
)

// lineLog tells xray-core's warnings and errors. xray-core calls it on the
// path of the traffic, so the less severe messages, which come with every
// connection, are dropped before they are formatted.
type lineLog struct {
	tell      func(line string) // must not block
	mu        sync.Mutex
	exhausted string    // see takeExhausted
	since     time.Time // when the minute began
	lines     int       // of this minute, with those that were left out
}

// unsaid are words of xray-core's about what is as it should be.
var unsaid = []string{
	"ignoring invalid OCSP",          // nobody asked for an answer: see certificateFiles
	"failed to serve HTTP for XHTTP", // it is not to: see borrowHandler
	"failed to serve http for WebSocket",
	`"X-Forwarded-For" from`, // that is not believed: any client could write such lines
}

// refusal are words of xray-core's about one connection that it did not take, or that ended with
// an error. Any stranger can bring such lines about; package guard counts the connections.
var refusal = append([]string{"app/proxyman/inbound: connection ends"}, listen.RefusalWords...)

// mostLines is how many lines the log takes in a minute. Beyond that strangers may be the cause.
const mostLines = 200

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
	if slices.ContainsFunc(refusal, func(words string) bool { return strings.Contains(line, words) }) {
		return
	}
	l.lineLocked(strings.ToLower(general.Severity.String()) + ": " + line)
}

// Write takes a line of Go's log, which servers of HTTP write to.
func (l *lineLog) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := strings.TrimSuffix(string(text), "\n")
	if slices.ContainsFunc(refusal, func(words string) bool { return strings.Contains(line, words) }) {
		guard.Refuse("")
	} else {
		l.lineLocked(strings.ReplaceAll(line, "\n", " | "))
	}
	return len(text), nil
}

// lineLocked writes a line, unless there were too many within a minute.
func (l *lineLog) lineLocked(line string) {
	if now := time.Now(); now.Sub(l.since) > time.Minute {
		if left := l.lines - mostLines; left > 0 {
			l.tell(fmt.Sprintf("warning: %d further lines were left out within a minute", left))
		}
		l.since, l.lines = now, 0
	}
	if l.lines++; l.lines <= mostLines {
		l.tell(line)
	}
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
