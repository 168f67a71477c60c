package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// Reports of nodes name clients by their credentials. No answer has them for a token that may
// only read, and the same answers have them for support.
func TestNoCredentialsForReaders(t *testing.T) {
	w := newWaiting(t)
	const id, secret = "0b3c6f0e-93b5-4f38-9b1e-2a5c1b7d9e42", "00112233445566778899aabbccddeeff"
	change := w.change()
	w.refuses(w.fra1, change.Nodes[0].Revision, map[string]any{"kind": "client", "tag": "in-2", "client": id, "reason": "client " + strings.ToUpper(id) + " has no flow", "retry": true},
		map[string]any{"kind": "client", "tag": "in-2", "client": "a name", "reason": "the secret ee" + secret + "6578 is taken"})
	w.says(w.fra1, func(ctx context.Context) error {
		return w.store.AddError(ctx, w.fra1.ID, "", wire.ErrorRequest{
			Code: "x", Message: "client " + id,
			Details: map[string]any{"client": id, id: []any{"of " + id, map[string]any{"client": "a name"}}, "number": 12345678901234567, "parts": []any{
				map[string]any{"kind": "client", "tag": "in-2", "client": id, "reason": "client " + id},
			}, "revision": float64(change.Nodes[0].Revision)},
		})
	})
	status := wire.StatusRequest{
		Inbounds: []wire.InboundHealth{{Tag: "in-2", State: wire.HealthDegraded, Reason: "client " + id + " is refused"}},
		Warnings: []string{"client " + id},
	}
	if err := w.store.SetStatus(t.Context(), w.fra1.ID, status); err != nil {
		t.Fatal(err)
	}
	reader := addToken(t, w.Server, coreapi.NewToken{Name: "reader", Role: coreapi.ReadOnly})
	support := addToken(t, w.Server, coreapi.NewToken{Name: "support", Role: coreapi.Support})
	for _, c := range []struct{ method, path, body string }{
		{http.MethodGet, "/nodes", ""},
		{http.MethodGet, "/nodes/fra1", ""},
		{http.MethodGet, "/node-errors", ""},
		{http.MethodPost, "/wait", fmt.Sprintf(`{"nodes":[{"node":%d,"revision":%d}]}`, change.Nodes[0].Node, change.Nodes[0].Revision)},
	} {
		all := request(t, w.Server, c.method, coreapi.Prefix+c.path, support, c.body)
		if all.Code != http.StatusOK || !strings.Contains(all.Body.String(), id) {
			t.Errorf("%s: support got %d, %s", c.path, all.Code, all.Body)
		}
		shown := request(t, w.Server, c.method, coreapi.Prefix+c.path, reader, c.body)
		text := strings.ToLower(shown.Body.String())
		if shown.Code != http.StatusOK || strings.Contains(text, id) || strings.Contains(text, secret) || strings.Contains(text, "a name") {
			t.Errorf("%s: a reader got %d, %s", c.path, shown.Code, shown.Body)
		}
		if !strings.Contains(text, "client "+hidden) {
			t.Errorf("%s: a reader does not get the rest of the text: %s", c.path, shown.Body)
		}
		if c.path == "/node-errors" && !strings.Contains(text, `"number":12345678901234567`) {
			t.Errorf("%s: a number has changed: %s", c.path, shown.Body)
		}
	}
}
