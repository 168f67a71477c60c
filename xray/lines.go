package xray

import (
	"log/slog"
	"regexp"
	"sync"

	"nodeagent/internal/logkey"
)

// deprecation matches xray-core's message about a feature that it will drop
// (common/errors/feature_errors.go). xray-core logs it each time the feature is built.
var deprecation = regexp.MustCompile(`\b[Ff]eature .* is deprecated`)

// workerLines logs the lines that the workers write. Any goroutine may call line.
type workerLines struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[string]bool // the deprecations that were logged
}

func newWorkerLines(log *slog.Logger) *workerLines {
	return &workerLines{log: log, told: map[string]bool{}}
}

// line logs one line. It logs each deprecation once for all workers, and only at level info,
// because the feature still works.
func (w *workerLines) line(line string) {
	if !deprecation.MatchString(line) {
		w.log.Warn("worker says", logkey.Line, withoutSecrets(line))
		return
	}
	w.mu.Lock()
	again := w.told[line]
	w.told[line] = true
	w.mu.Unlock()
	if !again {
		w.log.Info("xray-core will drop something that the configuration uses", logkey.Line, line)
	}
}
