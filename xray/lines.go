package xray

import (
	"log/slog"
	"regexp"
	"sync"
)

// deprecation matches what xray-core says of a feature that it will drop
// (common/errors/feature_errors.go). It says so whenever the feature is built.
var deprecation = regexp.MustCompile(`\b[Ff]eature .* is deprecated`)

// workerLines logs what the workers write. Its method may be called by any goroutine.
type workerLines struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[string]bool // deprecations
}

func newWorkerLines(log *slog.Logger) *workerLines {
	return &workerLines{log: log, told: map[string]bool{}}
}

// line logs one line. A deprecation is logged once for all workers, and harms nobody yet.
func (w *workerLines) line(line string) {
	if !deprecation.MatchString(line) {
		w.log.Warn("worker says", "line", withoutSecrets(line))
		return
	}
	w.mu.Lock()
	again := w.told[line]
	w.told[line] = true
	w.mu.Unlock()
	if !again {
		w.log.Info("xray-core will drop something that the configuration uses", "line", line)
	}
}
