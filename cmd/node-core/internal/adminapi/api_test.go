package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/coreapi"
	"nodeagent/internal/secret"
)

// overSocket serves the API of a server on a socket, and returns a client of it.
func overSocket(t *testing.T, s *Server) *coreapi.Client {
	t.Helper()
	dir := t.TempDir()
	listener, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: s.SocketHandler()}}
	server.Start()
	t.Cleanup(server.Close)
	client := coreapi.OverSocket(dir, filepath.Join(dir, socketName))
	t.Cleanup(client.Close)
	return client
}

// problemCode returns the code of an error that Core has answered.
func problemCode(t *testing.T, err error) string {
	t.Helper()
	p, is := errors.AsType[*coreapi.Problem](err)
	if !is {
		t.Fatalf("got %v, want a problem", err)
	}
	return p.Code
}

// A list comes in pages that a client puts together, in either order, and a name finds its row
// whatever characters it has.
func TestLists(t *testing.T) {
	s := newServer(t)
	c := overSocket(t, s)
	names := []string{"a b", "..", "x/y", "50%", "ü", "q?a=1#f"}
	for _, name := range names {
		if _, err := c.AddUser(t.Context(), coreapi.NewUser{Name: name}); err != nil {
			t.Fatal(err)
		}
		if user, err := c.User(t.Context(), name); err != nil || user.Name != name {
			t.Errorf("got %+v, %v for the name %q", user, err, name)
		}
	}
	for _, sort := range []string{"id", "-id", "name", "-name"} {
		users, err := coreapi.Collect(c.Users(t.Context(), url.Values{"limit": {"2"}, "sort": {sort}}))
		if err != nil || len(users) != len(names) {
			t.Fatalf("by %s: %d users, %v", sort, len(users), err)
		}
		for i := range len(users) - 1 {
			a, b := users[i], users[i+1]
			if strings.HasPrefix(sort, "-") {
				a, b = b, a
			}
			if strings.HasSuffix(sort, "id") && a.ID >= b.ID || strings.HasSuffix(sort, "name") && a.Name >= b.Name {
				t.Errorf("by %s: %q stands before %q", sort, users[i].Name, users[i+1].Name)
			}
		}
	}
	if users, err := coreapi.Collect(c.Users(t.Context(), url.Values{"search": {"%"}})); err != nil || len(users) != 1 || users[0].Name != "50%" {
		t.Errorf("got %+v, %v for what has a %%", users, err)
	}
	all, err := coreapi.Collect(c.Users(t.Context(), nil))
	if err != nil {
		t.Fatal(err)
	}
	ids := fmt.Sprint(all[1].ID, ",7,", all[4].ID)
	if users, err := coreapi.Collect(c.Users(t.Context(), url.Values{"id": {ids}})); err != nil || len(users) != 2 || users[0].ID != all[1].ID || users[1].ID != all[4].ID {
		t.Errorf("got %+v, %v for the ids %s", users, err, ids)
	}
	if _, err := c.User(t.Context(), ""); problemCode(t, err) != coreapi.CodeNotFound {
		t.Errorf("got %v for no name", err)
	}
}

// A wrong request is answered by a problem with a stable code.
func TestProblems(t *testing.T) {
	s := newServer(t)
	handler := s.SocketHandler()
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"no JSON":                  {"POST", "/users", `{"name":`, 400, coreapi.CodeInvalidJSON},
		"an unknown member":        {"POST", "/users", `{"name":"a","nme":"b"}`, 422, coreapi.CodeInvalidRequest},
		"a member is missing":      {"POST", "/users", `{}`, 422, coreapi.CodeInvalidRequest},
		"a number for a text":      {"POST", "/users", `{"name":5}`, 422, coreapi.CodeInvalidRequest},
		"no body":                  {"POST", "/users", ``, 400, coreapi.CodeInvalidJSON},
		"a name that can't be":     {"POST", "/users", `{"name":"7"}`, 400, coreapi.CodeBadInput},
		"a body that is too large": {"POST", "/users", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 413, coreapi.CodeTooLarge},
		"an unknown parameter":     {"GET", "/users?limt=5", ``, 422, coreapi.CodeInvalidRequest},
		"a limit of 0":             {"GET", "/users?limit=0", ``, 422, coreapi.CodeInvalidRequest},
		"an unknown order":         {"GET", "/users?sort=age", ``, 422, coreapi.CodeInvalidRequest},
		"no cursor":                {"GET", "/users?cursor=x", ``, 400, coreapi.CodeBadInput},
		"a user who is not":        {"GET", "/users/nobody", ``, 404, coreapi.CodeNotFound},
		"an unknown path":          {"GET", "/usrs", ``, 404, coreapi.CodeNoRoute},
		"another method":           {"PUT", "/users", `{}`, 405, coreapi.CodeMethodNotAllowed},
		"a wait that is too long":  {"POST", "/wait", `{"nodes":[],"wait":600000000001}`, 422, coreapi.CodeInvalidRequest},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, coreapi.Prefix+c.path, strings.NewReader(c.body))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		var p coreapi.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != c.status || p.Code != c.code || p.Status != c.status || p.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %d, %s (%v), want %d and %s", name, w.Code, w.Body, err, c.status, c.code)
		}
	}
}

// Where nothing says who asks, nothing is answered.
func TestNobodyMayNothing(t *testing.T) {
	s := newServer(t)
	for id, op := range documentOf(t, s) {
		w := httptest.NewRecorder()
		s.routes.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), op.method, op.path, strings.NewReader("{}")))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: got %d for nobody, want 403", id, w.Code)
		}
	}
}

// described is an operation as the OpenAPI document has it.
type described struct {
	method, path string
	role         coreapi.Role
}

// documentOf reads the operations of the OpenAPI document by their ids. Parameters of their
// paths are x.
func documentOf(t *testing.T, s *Server) map[string]described {
	t.Helper()
	w := httptest.NewRecorder()
	s.SocketHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, coreapi.Prefix+"/openapi.json", http.NoBody))
	var document struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string       `json:"operationId"`
			Role        coreapi.Role `json:"x-role"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &document); err != nil || document.OpenAPI != "3.1.0" {
		t.Fatalf("got %d, OpenAPI %q, %v", w.Code, document.OpenAPI, err)
	}
	all := map[string]described{}
	for path, methods := range document.Paths {
		for method, op := range methods {
			if op.OperationID == "" || op.Role == "" || all[op.OperationID].path != "" {
				t.Errorf("%s %s has the id %q and the role %q", method, path, op.OperationID, op.Role)
			}
			parts := strings.Split(path, "/")
			for i := range parts {
				if strings.HasPrefix(parts[i], "{") {
					parts[i] = "x"
				}
			}
			all[op.OperationID] = described{strings.ToUpper(method), strings.Join(parts, "/"), op.Role}
		}
	}
	if len(all) < 20 {
		t.Fatalf("the document has %d operations", len(all))
	}
	return all
}

// A request may take longer than the server gives it for reading: its context does not end.
func TestLongRequestsAreNotCut(t *testing.T) {
	w := newWaiting(t)
	change := w.change()
	token := addToken(t, w.Server, coreapi.NewToken{Name: "waits", Role: coreapi.ReadOnly})
	server := httptest.NewUnstartedServer(w.TokenHandler())
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	c, err := coreapi.OverHTTPS(server.URL, secret.Text(token), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	states, err := c.Wait(t.Context(), coreapi.WaitArgs{Change: change, Wait: time.Second})
	if err != nil || len(states) != 1 || states[0].State != coreapi.Away {
		t.Errorf("got %+v, %v", states, err)
	}
}
