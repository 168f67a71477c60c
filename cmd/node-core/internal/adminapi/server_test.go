package adminapi

import (
	"context"
	"log/slog"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/internal/postgrestest"
)

// openStore opens a new database: SQLite's, or PostgreSQL's in the run that TestPostgres has started.
func openStore(t *testing.T) (*corestore.Store, error) {
	t.Helper()
	if server := postgrestest.Running(); server != nil {
		return corestore.OpenPostgres(t.Context(), corestore.Postgres{URL: server.Database(t)})
	}
	return corestore.Open(t.Context(), t.TempDir())
}

// onPostgres are the tests that TestPostgres runs: those in which the database has a say.
const onPostgres = "^Test(Lists|Bulk|EventsAsPages|StreamsOver|EditsOfTwo|OnePort|IdempotencyKey|IfMatch|EachWrite|TotalsAre|EveryRow|RowsAre|Audit|ReadOnly|WhomAChange|ChangeNames|ChangeOf|Wait|LinksAfter|OutboundAdd)"

// TestPostgres runs tests of the API once more, on PostgreSQL.
func TestPostgres(t *testing.T) {
	postgrestest.Again(t, 10, "-test.run="+onPostgres)
}

// newServer makes a server on a new database with one node, fra1.
func newServer(t *testing.T) *Server {
	t.Helper()
	store, err := openStore(t)
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
