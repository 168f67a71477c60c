package xray_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"testing"
)

// journal keeps what the engine logs, at every level.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(data []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(data)
}

// all is everything that was logged.
func (j *journal) all() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// records are those of a message, with the level and the attributes by their names.
func (j *journal) records(t *testing.T, message string) []map[string]any {
	t.Helper()
	j.mu.Lock()
	lines := bytes.Lines(slices.Clone(j.text.Bytes()))
	j.mu.Unlock()
	var all []map[string]any
	for line := range lines {
		var record map[string]any
		if err := json.Unmarshal(line, &record); err != nil {
			t.Fatalf("the log has a line that is no JSON: %s", line)
		}
		if record[slog.MessageKey] == message {
			all = append(all, record)
		}
	}
	return all
}
