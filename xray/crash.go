package xray

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/xray/state"
)

// crashFile has the whole output of the last crash. It is in the folder of the counters.
const crashFile = "xray-crash.txt"

// workerName returns a name for a worker's socket and files, which no worker had before.
func workerName(kind string) string { return kind + "-" + rand.Text() }

// crashOutput returns the path of the crash output of the worker with a name.
func (e *Engine) crashOutput(name string) string {
	return filepath.Join(filepath.Dir(e.config.CountersPath), "xray-crash-"+name+".txt")
}

// keepCrash returns the panic message from the crash output of a worker that has ended, and
// renames the file to crashFile. If the file has no panic, it returns an empty string and
// removes the file.
func keepCrash(path string) (string, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("read crash output: %w", err)
	}
	defer file.Close()
	words := supervise.PanicWords(file)
	if words == "" {
		return "", os.Remove(path)
	}
	return words, os.Rename(path, filepath.Join(filepath.Dir(path), crashFile))
}

// withoutSecrets replaces what may be a secret in the first line of a crash. It returns
// other lines as they are.
func withoutSecrets(line string) string {
	if words := strings.TrimSpace(line); strings.HasPrefix(words, "panic:") || strings.HasPrefix(words, "fatal error:") {
		return supervise.HideSecrets(line)
	}
	return line
}

// logStack logs the stack of a panic of xray-core that the worker recovered during an
// operation. Core gets only the message.
func (e *Engine) logStack(op state.Operation, err error) {
	if failure, ok := errors.AsType[*fault.Fault](err); ok && failure.Stack != "" {
		e.deps.Log.Error("xray-core panicked during an operation", logkey.Operation, op.Kind, logkey.Tag, op.Tag, logkey.Stack, failure.Stack)
	}
}

// dying is how long a process may take to end after it has closed its socket.
const dying = time.Second

// killedFromOutside tells whether neither the worker nor the engine ended the process, but an
// operator, or the kernel because memory ran out.
func (w *workerClient) killedFromOutside() bool {
	select {
	case <-w.process.Done():
		return w.hang.Load() == nil && supervise.Killed(w.process.Err())
	case <-time.After(dying):
		return false
	}
}

// blamesBuild reports whether this build may be why a worker crashed: it took over from another one
// within the last minute. A change over which the worker ended would end one of another build too, and a
// worker that did not answer may have waited for a busy host.
func (e *Engine) blamesBuild(dead *workerClient) bool {
	return !dead.changing && dead.hang.Load() == nil && !e.upgradedAt.IsZero() && time.Since(e.upgradedAt) < healthyUptime
}

// endedError says in one sentence that a worker ended during a change. It matches
// errWorkerGone and ErrFatalChange.
type endedError struct {
	message string
	is      []error
}

func (e *endedError) Error() string   { return e.message }
func (e *endedError) Unwrap() []error { return e.is }

// endedOver returns the error of a change during which the worker ended, or was killed
// because it did not answer. err is the error of the call. fromOutside says that another
// process killed the worker: then the change is not to blame.
func endedOver(err error, fromOutside bool) error {
	switch {
	case fromOutside:
		return errWorkerGone
	case errors.Is(err, errWorkerGone):
		return &endedError{"the xray worker ended over this change, before it answered", []error{ErrFatalChange, errWorkerGone}}
	}
	return &endedError{fmt.Sprintf("the xray worker was ended over this change: %v", err), []error{ErrFatalChange, errWorkerGone, err}}
}
