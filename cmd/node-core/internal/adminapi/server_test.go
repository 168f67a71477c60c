package adminapi

import (
	"context"
	"log/slog"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
)

// newServer makes a server on a new database with one node, fra1.
func newServer(t *testing.T) *Server {
	t.Helper()
	store, err := corestore.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s := NewServer(t.Context(), store, hub.New(), "https://core.example", "", slog.New(slog.DiscardHandler))
	if _, err := s.nodeAdd(t.Context(), nodeArgs{Node: "fra1"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// must is the answer of a call that changes nodes and succeeds.
func must[Args, Answer any](t *testing.T, call func(context.Context, Args) (Answer, changed, error), args Args) Answer {
	t.Helper()
	answer, _, err := call(t.Context(), args)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
