package adminapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// A repeated request with the same Idempotency-Key changes nothing and gets the same answer.
func TestIdempotencyKey(t *testing.T) {
	s := newServer(t)
	token := addToken(t, s, coreapi.NewToken{Name: "billing", Role: coreapi.Owner})
	other := addToken(t, s, coreapi.NewToken{Name: "shop", Role: coreapi.Owner})
	if _, err := s.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	add := func(token, key, body string) (int, string, string) {
		w := request(t, s, http.MethodPost, coreapi.Prefix+"/subscriptions", token, body, headerKey, key)
		return w.Code, w.Body.String(), w.Header().Get(coreapi.HeaderChange)
	}
	status, first, change := add(token, "k1", `{"user":"alice"}`)
	if status != http.StatusCreated || change == "" {
		t.Fatalf("got %d, %s", status, first)
	}
	if status, again, changeAgain := add(token, "k1", `{"user":"alice"}`); status != http.StatusCreated || again != first || changeAgain != change {
		t.Errorf("repeated: got %d, %s, want %s", status, again, first)
	}
	if status, body, _ := add(token, "k1", `{"user":"bob"}`); status != http.StatusUnprocessableEntity || !strings.Contains(body, coreapi.CodeKeyReused) {
		t.Errorf("another request with the key: got %d, %s", status, body)
	}
	if status, body, _ := add(other, "k1", `{"user":"alice"}`); status != http.StatusCreated || body == first {
		t.Errorf("the key of another token: got %d, %s", status, body)
	}
	// A failed step is tried again.
	if status, body, _ := add(token, "k2", `{"user":"carol"}`); status != http.StatusNotFound {
		t.Errorf("got %d, %s", status, body)
	}
	if _, err := s.store.AddUser(t.Context(), "carol"); err != nil {
		t.Fatal(err)
	}
	if status, body, _ := add(token, "k2", `{"user":"carol"}`); status != http.StatusCreated {
		t.Errorf("tried again: got %d, %s", status, body)
	}
	subs, err := s.store.Subscriptions(t.Context())
	if err != nil || len(subs) != 3 {
		t.Errorf("there are %d subscriptions, want 3 (%v)", len(subs), err)
	}
	// The answer with a secret is not kept.
	for _, want := range []int{http.StatusCreated, http.StatusConflict} {
		if w := request(t, s, http.MethodPost, coreapi.Prefix+"/tokens", token, `{"name":"t","role":"support"}`, headerKey, "k3"); w.Code != want {
			t.Errorf("a token: got %d, %s, want %d", w.Code, w.Body, want)
		}
	}
	if kept, err := s.store.Answered(t.Context(), "billing", "k3"); err != nil || kept.Status != 0 || len(kept.Body) != 0 {
		t.Errorf("the answer with a token was kept: %d, %v", kept.Status, err)
	}
}

// A change with If-Match is refused where somebody else has changed the row, and traffic is no
// change.
func TestIfMatch(t *testing.T) {
	s := newServer(t)
	token := addToken(t, s, coreapi.NewToken{Name: "billing", Role: coreapi.Owner})
	if _, err := s.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	path := coreapi.Prefix + "/users/alice"
	before := request(t, s, http.MethodGet, path, token, "")
	etag := before.Header().Get("ETag")
	if etag == "" {
		t.Fatalf("no ETag: %d, %s", before.Code, before.Body)
	}
	if w := request(t, s, http.MethodPatch, path, token, `{"note":"a"}`, "If-Match", etag); w.Code != http.StatusOK {
		t.Errorf("the first edit: got %d, %s", w.Code, w.Body)
	}
	if w := request(t, s, http.MethodPatch, path, token, `{"note":"b"}`, "If-Match", etag); w.Code != http.StatusPreconditionFailed || !strings.Contains(w.Body.String(), coreapi.CodeChanged) {
		t.Errorf("the second edit: got %d, %s", w.Code, w.Body)
	}
	if w := request(t, s, http.MethodDelete, path, token, "", "If-Match", etag); w.Code != http.StatusPreconditionFailed {
		t.Errorf("a removal: got %d, %s", w.Code, w.Body)
	}
	if w := request(t, s, http.MethodPatch, path, token, `{"note":"c"}`, "If-Match", `"x", `+request(t, s, http.MethodGet, path, token, "").Header().Get("ETag")); w.Code != http.StatusOK {
		t.Errorf("with one of two ETags: got %d, %s", w.Code, w.Body)
	}
	if user, err := s.store.User(t.Context(), "alice"); err != nil || user.Note != "c" {
		t.Errorf("the note is %q, %v", user.Note, err)
	}
}

// Every row that can be edited has an ETag when it is read. An edit changes it, and with the one before
// a second edit is refused, whatever the row is called in the path.
func TestEveryRowHasAnETag(t *testing.T) {
	s := newServer(t)
	token := addToken(t, s, coreapi.NewToken{Name: "billing", Role: coreapi.Owner})
	for _, row := range []struct{ path, body string }{
		{"/nodes", `{"name":"n1"}`},
		{"/protocols", `{"node":"n1","flags":{"protocol":"vless","port":443,"security":"none","listen":"0.0.0.0"},"tag":"in"}`},
		{"/protocols", `{"template":"main","flags":{"protocol":"vless","port":444,"security":"none","listen":"0.0.0.0"}}`},
		{"/hosts", `{"protocol":"n1/in","address":"cdn.example"}`},
		{"/outbounds", `{"node":"n1","tag":"o","config":{"protocol":"blackhole"}}`},
		{"/routing-profiles", `{"name":"r"}`},
	} {
		if w := request(t, s, http.MethodPost, coreapi.Prefix+row.path, token, row.body); w.Code != http.StatusCreated {
			t.Fatalf("add %s: got %d, %s", row.body, w.Code, w.Body)
		}
	}
	protocols, err := s.store.Protocols(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := s.store.Hosts(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ path, method, one, other string }{
		{"/nodes/n1", http.MethodPatch, `{"note":"1"}`, `{"note":"2"}`},
		{fmt.Sprint("/protocols/", protocols[0].ID), http.MethodPatch, `{"note":"1"}`, `{"note":"2"}`},
		{"/protocols/n1%2Fin", http.MethodPatch, `{"note":"3"}`, `{"note":"4"}`},
		{"/protocols/main", http.MethodPatch, `{"note":"1"}`, `{"note":"2"}`},
		{"/nodes/n1/outbounds/o", http.MethodPut, `{"protocol":"blackhole","settings":{"response":{"type":"http"}}}`, `{"protocol":"freedom"}`},
		{"/routing-profiles/r", http.MethodPatch, `{"note":"1"}`, `{"note":"2"}`},
		{fmt.Sprint("/hosts/", hosts[0].ID), http.MethodPatch, `{"remark":"1"}`, `{"remark":"2"}`},
	} {
		path := coreapi.Prefix + row.path
		read := func() string { return request(t, s, http.MethodGet, path, token, "").Header().Get("ETag") }
		before := read()
		if before == "" || read() != before {
			t.Errorf("%s: ETag %q, and %q when it is read again", row.path, before, read())
		}
		if w := request(t, s, row.method, path, token, row.one, "If-Match", before); w.Code != http.StatusOK {
			t.Errorf("%s, the first edit: got %d, %s", row.path, w.Code, w.Body)
		}
		if w := request(t, s, row.method, path, token, row.other, "If-Match", before); w.Code != http.StatusPreconditionFailed {
			t.Errorf("%s, the second edit: got %d, %s", row.path, w.Code, w.Body)
		}
		if w := request(t, s, row.method, path, token, row.other, "If-Match", read()); w.Code != http.StatusOK {
			t.Errorf("%s, the second edit after another look: got %d, %s", row.path, w.Code, w.Body)
		}
	}
}

// A row is always answered in full: what changes by itself, and the subscription's own link, are in
// the answer too. Another link is a change for If-Match.
func TestRowsAreAnsweredInFull(t *testing.T) {
	s := newServer(t)
	token := addToken(t, s, coreapi.NewToken{Name: "billing", Role: coreapi.Owner})
	user, err := s.store.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := s.store.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprint(coreapi.Prefix, "/subscriptions/", sub.ID)
	before := request(t, s, http.MethodGet, path, token, "")
	etag := before.Header().Get("ETag")
	entry := wire.UsageEntry{UserID: user.ID, SubscriptionID: &sub.ID, NodeProtocolID: 1, BytesUp: 4711, RecordedAt: time.Now().UTC().Truncate(time.Minute)}
	if _, err := s.store.AddUsage(t.Context(), 1, "", []wire.UsageEntry{entry}); err != nil {
		t.Fatal(err)
	}
	after := request(t, s, http.MethodGet, path, token, "", "If-None-Match", etag)
	if after.Code != http.StatusOK || !strings.Contains(after.Body.String(), "4711") || after.Header().Get("ETag") != etag {
		t.Errorf("after traffic: got %d, %s and ETag %s, want the bytes and %s", after.Code, after.Body, after.Header().Get("ETag"), etag)
	}
	if w := request(t, s, http.MethodPost, path+"/rotate-link", token, ""); w.Code != http.StatusOK {
		t.Fatalf("got %d, %s", w.Code, w.Body)
	}
	after = request(t, s, http.MethodGet, path, token, "", "If-None-Match", etag)
	if after.Code != http.StatusOK || after.Header().Get("ETag") == etag {
		t.Errorf("with another link: got %d and ETag %s, want another one", after.Code, after.Header().Get("ETag"))
	}
	if w := request(t, s, http.MethodPatch, path, token, `{"note":"a"}`, "If-Match", etag); w.Code != http.StatusPreconditionFailed {
		t.Errorf("an edit with the ETag before the other link: got %d, %s", w.Code, w.Body)
	}
}

// The audit log has each change once, with its caller, and neither reads nor refused changes.
// It has no secrets, and no name of somebody who was erased.
func TestAudit(t *testing.T) {
	s := newServer(t)
	token := addToken(t, s, coreapi.NewToken{Name: "billing", Role: coreapi.Owner})
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/users", `{"name":"alice","note":"secret note","contact":{"email":"alice@example.com"}}`},
		{"POST", "/users", `{"name":"alice"}`},
		{"GET", "/users/alice", ``},
		{"PATCH", "/users/alice", `{"enabled":false}`},
		{"POST", "/nodes/fra1/code", `{}`},
		{"DELETE", "/users/nobody", ``},
	} {
		request(t, s, c.method, coreapi.Prefix+c.path, token, c.body)
	}
	entries, _, err := s.store.ListAudit(t.Context(), corestore.AuditFilter{Who: "billing"}, corestore.List{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Operation+" "+e.Target+" "+string(e.Details))
	}
	want := []string{
		`user-add /users {"contact":"(left out)","name":"alice","note":"(left out)"}`,
		`user-edit /users/alice {"enabled":false}`,
		`node-code /nodes/fra1/code {}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the audit log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if w := request(t, s, "POST", coreapi.Prefix+"/users/alice/erase", token, ""); w.Code != http.StatusOK {
		t.Fatalf("got %d, %s", w.Code, w.Body)
	}
	w := request(t, s, "GET", coreapi.Prefix+"/audit?who=billing&sort=-id&limit=2", token, "")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"user-erase"`) || !strings.Contains(w.Body.String(), `"next"`) {
		t.Errorf("got %d, %s", w.Code, w.Body)
	}
	if all := request(t, s, "GET", coreapi.Prefix+"/audit", token, "").Body.String(); strings.Contains(all, "alice") || strings.Count(all, `"user-edit"`) != 1 {
		t.Errorf("after the erasure: %s", all)
	}
}

// The answer to a request that adds a row has the same members as a later request for that row, and the
// same times.
func TestNewRowsAreAnsweredAsTheyAreRead(t *testing.T) {
	s := newServer(t)
	token := addToken(t, s, coreapi.NewToken{Name: "billing", Role: coreapi.Owner})
	for _, row := range []struct{ path, body string }{
		{"/users", `{"name":"alice"}`},
		{"/subscriptions", `{"user":"alice","expiry":{"afterSeconds":60}}`},
		{"/plans", `{"name":"basic"}`},
		{"/groups", `{"name":"family"}`},
		{"/routing-profiles", `{"name":"strict"}`},
	} {
		added := request(t, s, http.MethodPost, coreapi.Prefix+row.path, token, row.body)
		var first, again map[string]any
		if err := json.Unmarshal(added.Body.Bytes(), &first); err != nil || added.Code != http.StatusCreated {
			t.Fatalf("%s: got %d, %s", row.path, added.Code, added.Body)
		}
		id, _ := first["id"].(float64)
		read := request(t, s, http.MethodGet, fmt.Sprintf("%s%s/%.0f", coreapi.Prefix, row.path, id), token, "")
		if err := json.Unmarshal(read.Body.Bytes(), &again); err != nil || read.Code != http.StatusOK {
			t.Fatalf("%s: got %d, %s", row.path, read.Code, read.Body)
		}
		for name, value := range first {
			if !reflect.DeepEqual(value, again[name]) {
				t.Errorf("%s: %s was answered as %v, and is %v", row.path, name, value, again[name])
			}
		}
	}
}
