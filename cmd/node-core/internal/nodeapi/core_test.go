package nodeapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/postgrestest"
)

// onlySQLite are the tests that TestPostgres leaves out: herds that measure a process of their own, a night
// of restores that exchanges SQLite's file, and those in which the database has no say.
const onlySQLite = "^Test(Postgres|Herd|ManyLimits|WhateverHappens|CompressedBodies|SlowBody|ProblemsAreNot|UnreadDocuments)"

// TestPostgres runs tests of the node routes once more, on PostgreSQL.
func TestPostgres(t *testing.T) {
	postgrestest.Again(t, 15, "-test.skip="+onlySQLite)
}

// core is a Core with a real database and a real socket, and one registered node.
type core struct {
	t     *testing.T
	dir   string // of SQLite
	url   string // of a database of PostgreSQL, in the run of TestPostgres
	store *corestore.Store
	hub   *hub.Hub
	http  *httptest.Server
	key   string // of the registered node
	node  int64
	api   *API
}

func newCore(t *testing.T) *core {
	t.Helper()
	c := &core{t: t, dir: t.TempDir(), hub: hub.New()}
	if server := postgrestest.Running(); server != nil {
		c.url = server.Database(t)
	}
	c.open()
	t.Cleanup(c.close)
	node, code, err := c.store.AddNode(t.Context(), "node", "eu", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c.node = node.ID
	var answer wire.RegisterResponse
	c.want(http.StatusOK, c.post(wire.PathRegister, "attempt", fmt.Sprintf(`{"code":%q,"name":"n","host":"h","ip":"192.0.2.1","region":""}`, code)), &answer)
	c.key = answer.AuthKey
	return c
}

// revision returns the revision that the node should run.
func (c *core) revision() int64 {
	c.t.Helper()
	revision, err := c.store.Revision(c.t.Context(), c.node)
	if err != nil {
		c.t.Fatal(err)
	}
	return revision
}

func (c *core) open() {
	c.t.Helper()
	var err error
	if c.url != "" {
		c.store, err = corestore.OpenPostgres(c.t.Context(), corestore.Postgres{URL: c.url})
	} else {
		c.store, err = corestore.Open(c.t.Context(), c.dir)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.api = New(context.Background(), c.store, c.hub, slog.New(slog.DiscardHandler))
	c.http = httptest.NewServer(c.api.Handler())
}

func (c *core) close() {
	c.http.Close()
	if err := c.store.Close(); err != nil {
		c.t.Error(err)
	}
}

// check checks the whole database.
func (c *core) check() {
	c.t.Helper()
	var err error
	if c.url != "" {
		_, err = corestore.CheckPostgres(c.t.Context(), corestore.Postgres{URL: c.url})
	} else {
		_, err = corestore.Check(c.t.Context(), c.dir)
	}
	if err != nil {
		c.t.Error(err)
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (c *core) send(method, path string, header map[string]string, body string) answer {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.http.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(raw)}
}

func (c *core) post(path, idempotencyKey, body string) answer {
	c.t.Helper()
	return c.send(http.MethodPost, path, map[string]string{"x-node-auth-key": c.key, "Idempotency-Key": idempotencyKey}, body)
}

func (c *core) want(status int, a answer, v any) {
	c.t.Helper()
	if a.status != status {
		c.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(a.body), v); err != nil {
			c.t.Fatalf("%v: %s", err, a.body)
		}
	}
}
