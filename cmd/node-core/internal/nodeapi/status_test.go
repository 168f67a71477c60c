package nodeapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"nodeagent/coreclient/wire"
)

// The last status of a node is kept, and is no error of it.
func TestStatus(t *testing.T) {
	c := newCore(t)
	before, err := c.store.Node(t.Context(), "node")
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range []string{"first", "second\u202e"} {
		c.want(http.StatusOK, c.post(wire.PathStatus, "", fmt.Sprintf(`{"versions":{"xray":"26.7.28"},"warnings":[%q],
			"inbounds":[{"tag":"vless-1","protocol":"vless","state":"failed","since":"2026-01-02T15:04:05Z","reason":"its port is taken"}]}`, warning)), nil)
	}
	got, err := c.store.Status(t.Context(), before.ID)
	if err != nil || got == nil || len(got.Warnings) != 1 || got.Warnings[0] != "second\u202e" || got.Inbounds[0].Reason != "its port is taken" {
		t.Fatalf("kept %+v, %v", got, err)
	}
	now, err := c.store.Node(t.Context(), "node")
	if err != nil || now.Status != before.Status || now.SyncStatus != before.SyncStatus || now.LastError != nil {
		t.Errorf("the node is %+v, %v", now, err)
	}
	for name, body := range map[string]string{
		"state":    `{"inbounds":[{"tag":"a","state":"fine","since":"2026-01-02T15:04:05Z"}]}`,
		"warnings": `{"inbounds":[],"warnings":["` + strings.Repeat("x", maxStatusText+1) + `"]}`,
		"unknown":  `{"inbounds":[],"colour":"red"}`,
	} {
		if status := c.post(wire.PathStatus, "", body).status; status != http.StatusBadRequest && status != http.StatusUnprocessableEntity {
			t.Errorf("%s: answered %d", name, status)
		}
	}
}
