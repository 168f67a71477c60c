package adminapi

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nodeagent/coreapi"
)

// addToken adds a token and returns its secret.
func addToken(t *testing.T, s *Server, token coreapi.NewToken) string {
	t.Helper()
	added, err := s.tokenAdd(withCaller(t.Context(), caller{name: socketCaller, role: coreapi.Owner}), token)
	if err != nil {
		t.Fatal(err)
	}
	return added.Secret
}

// request sends a request to the API over the network, with a token unless it is empty.
func request(t *testing.T, s *Server, method, path, token, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	var reader io.Reader = http.NoBody
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(t.Context(), method, path, reader)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.TokenHandler().ServeHTTP(w, r)
	return w
}

// Each operation is refused without a token, with a wrong, a removed and an expired one, and to
// each role below its own. It is not refused to its own role. New operations are tried too: they
// are read from the OpenAPI document.
func TestEachOperationNeedsItsRole(t *testing.T) {
	s := newServer(t)
	past := time.Now().Add(-time.Second)
	expired := addToken(t, s, coreapi.NewToken{Name: "expired", Role: coreapi.Owner, Expiry: &coreapi.Expiry{At: &past}})
	gone := addToken(t, s, coreapi.NewToken{Name: "removed", Role: coreapi.Owner})
	if w := request(t, s, http.MethodGet, coreapi.Prefix+"/caller", gone, ""); w.Code != http.StatusOK {
		t.Fatalf("a good token got %d, %s", w.Code, w.Body)
	}
	if _, err := s.store.RemoveToken(t.Context(), "removed"); err != nil {
		t.Fatal(err)
	}
	byRole := map[coreapi.Role]string{}
	for _, role := range coreapi.Roles() {
		byRole[role] = addToken(t, s, coreapi.NewToken{Name: "a " + string(role), Role: role})
	}
	for id, op := range documentOf(t, s) {
		for name, c := range map[string]struct{ token, code string }{
			"no token":        {"", coreapi.CodeNoToken},
			"a wrong token":   {byRole[coreapi.Owner] + "x", coreapi.CodeUnknownToken},
			"a removed token": {gone, coreapi.CodeUnknownToken},
			"an old token":    {expired, coreapi.CodeExpiredToken},
		} {
			w := request(t, s, op.method, op.path, c.token, "{}")
			if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), `"`+c.code+`"`) || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s with %s: got %d, %s", id, name, w.Code, w.Body)
			}
		}
		for _, role := range coreapi.Roles() {
			w := request(t, s, op.method, op.path, byRole[role], "{}")
			if refused := w.Code == http.StatusForbidden; refused == role.May(op.role) || w.Code == http.StatusUnauthorized {
				t.Errorf("%s, which needs %s, to %s: got %d, %s", id, op.role, role, w.Code, w.Body)
			}
		}
	}
}

// The table of docs/api.md says what each role may do.
func TestRolesOfOperations(t *testing.T) {
	of := documentOf(t, newServer(t))
	for role, ids := range map[coreapi.Role]string{
		coreapi.ReadOnly: "caller client-rule-list client-rule-show client-template-list client-template-show events group-list group-show host-list host-show node-errors node-list node-show online outbound-list outbound-show plan-list plan-show protocol-list protocol-show routing-list routing-show subscription-list template-list usage usage-report user-list user-show wait",
		coreapi.Support:  "device-edit device-list device-remove subscription-add subscription-bulk subscription-disable subscription-edit subscription-enable subscription-extend subscription-reset subscription-rotate subscription-rotate-link subscription-show subscription-top-up user-add user-bulk user-edit",
		coreapi.Operator: "audit client-rule-remove client-rule-set client-template-remove client-template-set group-add group-edit group-remove host-add host-edit host-remove import node-add node-code node-edit node-mtproto node-remove node-rotate outbound-add outbound-edit outbound-remove outbound-replace plan-add plan-edit plan-remove protocol-add protocol-edit protocol-remove protocol-rotate routing-add routing-edit routing-remove subscription-files subscription-remove user-erase user-remove",
		coreapi.Owner:    "announce token-add token-list token-remove webhook-add webhook-list webhook-remove webhook-test",
	} {
		for id := range strings.FieldsSeq(ids) {
			if of[id].role != role {
				t.Errorf("operation %s needs the role %q, and the table says %q", id, of[id].role, role)
			}
			delete(of, id)
		}
	}
	for id := range of {
		t.Errorf("operation %s is not in the table: write it there and into docs/api.md", id)
	}
}

// The role read-only sees no credential.
func TestReadOnlySeesNoCredentials(t *testing.T) {
	s := newServer(t)
	if _, err := s.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	sub := must(t, s.subscriptionAdd, subscriptionArgs{User: "alice"})
	for role, sees := range map[coreapi.Role]bool{coreapi.ReadOnly: false, coreapi.Support: true} {
		token := addToken(t, s, coreapi.NewToken{Name: string(role) + " sees", Role: role})
		for _, path := range []string{"/subscriptions", "/users/alice"} {
			body := request(t, s, http.MethodGet, coreapi.Prefix+path, token, "").Body.String()
			if strings.Contains(body, sub.UUID) != sees || strings.Contains(body, sub.MTProtoSecret) != sees || !strings.Contains(body, `"bytesUp"`) {
				t.Errorf("%s of %s: %s", path, role, body)
			}
		}
	}
}

// The document and its page are for everybody, and need nothing from elsewhere.
func TestDocumentNeedsNoToken(t *testing.T) {
	s := newServer(t)
	for path, has := range map[string]string{"/openapi.json": `"operationId":"user-add"`, "/openapi.yaml": "operationId: user-add", "/docs": `<h3 id="user-add">`} {
		w := request(t, s, http.MethodGet, coreapi.Prefix+path, "", "")
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), has) {
			t.Errorf("%s: got %d without %q", path, w.Code, has)
		}
		if path == "/docs" && (strings.Contains(w.Body.String(), "http://") || strings.Contains(w.Body.String(), "<script")) {
			t.Errorf("the page refers to something elsewhere")
		}
	}
}

// A wrong token is refused before it is stored.
func TestTokensThatCanNotBe(t *testing.T) {
	s := newServer(t)
	for name, token := range map[string]coreapi.NewToken{
		"the name of the socket": {Name: socketCaller, Role: coreapi.Owner},
		"a number for a name":    {Name: "7", Role: coreapi.Owner},
		"no role":                {Name: "a"},
		"an unknown role":        {Name: "a", Role: "root"},
		"from the first use":     {Name: "a", Role: coreapi.Owner, Expiry: &coreapi.Expiry{AfterSeconds: 5, FromFirstUse: true}},
		"a life below zero":      {Name: "a", Role: coreapi.Owner, Expiry: &coreapi.Expiry{AfterSeconds: -5}},
	} {
		if _, err := s.tokenAdd(t.Context(), token); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// Where the database is away, a request with any token gets a fixed text: the database's words name
// hosts, users and files. They are in the log.
func TestNobodyLearnsOfTheDatabase(t *testing.T) {
	s := newServer(t)
	var logged bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&logged, nil))
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	w := request(t, s, http.MethodGet, coreapi.Prefix+"/caller", "anything", "")
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), coreapi.CodeInternal) || strings.Contains(w.Body.String(), "sql") {
		t.Errorf("got %d, %s", w.Code, w.Body)
	}
	if !strings.Contains(logged.String(), "sql: database is closed") {
		t.Errorf("the log has %q", logged.String())
	}
}
