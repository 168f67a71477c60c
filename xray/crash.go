package xray

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

const (
	// crashFile is the last crash's output, whole, beside the counters.
	crashFile = "xray-crash.txt"
	// maxCrash bounds how much of a crash's output is read, in bytes.
	maxCrash = 256 << 10
	// topFrames is how many callers of the panic are told.
	topFrames = 6
)

// ownCrashFile is where one worker's crash output goes while it runs.
func (e *Engine) ownCrashFile() string {
	e.workersStarted++
	return filepath.Join(filepath.Dir(e.config.CountersPath), fmt.Sprintf("xray-crash-%d.txt", e.workersStarted))
}

// keepCrash returns what a worker that ended wrote of its panic, empty where it
// wrote nothing, and keeps the file as the last crash's.
func keepCrash(path string) (string, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("read crash output: %w", err)
	}
	defer file.Close()
	words := panicWords(io.LimitReader(file, maxCrash))
	if words == "" {
		return "", os.Remove(path)
	}
	return words, os.Rename(path, filepath.Join(filepath.Dir(path), crashFile))
}

// secretInPanic is what a panic's words may quote of a configuration: UUIDs, keys
// and passwords.
var secretInPanic = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[A-Za-z0-9+/_=-]{20,}`)

// withoutSecrets hides what a panic's words in a worker's output may quote.
func withoutSecrets(line string) string {
	if words := strings.TrimSpace(line); strings.HasPrefix(words, "panic:") || strings.HasPrefix(words, "fatal error:") {
		return secretInPanic.ReplaceAllString(line, "(hidden)")
	}
	return line
}

// panicWords reads Go's crash output: why it ended, and the callers above, the
// runtime's own left out.
func panicWords(output io.Reader) string {
	var reason string
	var frames []string
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, maxCrash)
	function := ""
	for lines.Scan() && len(frames) < topFrames {
		line := lines.Text()
		switch {
		case reason == "":
			if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.HasPrefix(line, "SIG") {
				reason = secretInPanic.ReplaceAllString(line, "(hidden)")
			}
		case strings.HasPrefix(line, "\t") && function != "":
			place, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			frames = append(frames, fmt.Sprintf("%s (%s)", function, filepath.Join(filepath.Base(filepath.Dir(place)), filepath.Base(place))))
			function = ""
		case strings.HasSuffix(line, ")") && !strings.HasPrefix(line, "panic(") && !strings.HasPrefix(line, "runtime."):
			function = line[:strings.LastIndex(line, "(")]
		}
	}
	if reason == "" {
		return ""
	}
	if len(frames) == 0 {
		return reason
	}
	return reason + "; in " + strings.Join(frames, " < ")
}

// logStack tells the log where xray-core panicked over an operation, and the worker caught
// it: Core is told its words alone.
func (e *Engine) logStack(op state.Operation, err error) {
	if failure, ok := errors.AsType[*fault.Fault](err); ok && failure.Stack != "" {
		e.deps.Log.Error("xray-core panicked over an operation", "operation", op.Kind, "tag", op.Tag, "stack", failure.Stack)
	}
}

// dying is how long a process that has closed its socket may take to end.
const dying = time.Second

// killedFromOutside tells of a worker that is gone whether somebody else ended it: an
// operator, or the kernel for want of memory.
func (w *workerClient) killedFromOutside() bool {
	select {
	case <-w.process.Done():
		return w.hang.Load() == nil && killed(w.process.Err())
	case <-time.After(dying):
		return false
	}
}

// endedError says in one sentence that a worker ended over a change. It is errWorkerGone, and
// ErrFatalChange where the worker ended by itself.
type endedError struct {
	message string
	is      []error
}

func (e *endedError) Error() string   { return e.message }
func (e *endedError) Unwrap() []error { return e.is }

// endedOver returns the error of a change over which the worker ended, or was ended because
// it gave no answer. err is the error of the call.
func endedOver(err error, fromOutside bool) error {
	switch {
	case fromOutside:
		return errWorkerGone
	case errors.Is(err, errWorkerGone):
		return &endedError{"the xray worker ended over this change, before it answered", []error{ErrFatalChange, errWorkerGone}}
	}
	return &endedError{fmt.Sprintf("the xray worker was ended over this change: %v", err), []error{ErrFatalChange, errWorkerGone, err}}
}
