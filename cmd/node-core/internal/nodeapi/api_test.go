package nodeapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"nodeagent/coreclient/wire"
)

func TestRefusals(t *testing.T) {
	c := newCore(t)
	entry := func(member, value string) string {
		members := map[string]string{"userId": "1", "nodeProtocolId": "1", "bytesUp": "1", "bytesDown": "1", "recordedAt": `"2026-01-02T03:04:00Z"`}
		members[member] = value
		var parts []string
		for name, v := range members {
			if v != "" {
				parts = append(parts, fmt.Sprintf("%q:%s", name, v))
			}
		}
		good := `{"userId":1,"nodeProtocolId":1,"bytesUp":1,"bytesDown":1,"recordedAt":"2026-01-02T03:04:00Z"}`
		return `{"entries":[` + good + `,{` + strings.Join(parts, ",") + `}]}`
	}
	for _, r := range []struct {
		name, path, body string
		status           int
		code, says       string
	}{
		{"no JSON", wire.PathUsage, `<html>`, 400, "invalid_json", ""},
		{"empty", wire.PathUsage, ``, 400, "invalid_json", "empty"},
		{"two values", wire.PathUsage, usageBody + `{}`, 400, "invalid_json", "follows"},
		{"no entries", wire.PathUsage, `{}`, 400, "invalid_field", "entries"},
		{"null", wire.PathUsage, `null`, 400, "invalid_field", "entries"},
		{"unknown member", wire.PathUsage, entry("more", "1"), 400, "invalid_field", "more"},
		{"no userId", wire.PathUsage, entry("userId", ""), 400, "invalid_field", "entries[1].userId"},
		{"userId that is text", wire.PathUsage, entry("userId", `"1"`), 400, "invalid_field", "userId"},
		{"subscription 0", wire.PathUsage, entry("subscriptionId", "0"), 400, "invalid_field", "entries[1].subscriptionId"},
		{"no bytesUp", wire.PathUsage, entry("bytesUp", ""), 400, "invalid_field", "entries[1].bytesUp"},
		{"negative bytes", wire.PathUsage, entry("bytesDown", "-1"), 400, "invalid_field", "entries[1].bytesDown"},
		{"bytes beyond sense", wire.PathUsage, entry("bytesUp", "9223372036854775807"), 400, "invalid_field", "entries[1].bytesUp"},
		{"a time that is none", wire.PathUsage, entry("recordedAt", `"junk"`), 400, "invalid_field", "entries[1].recordedAt"},
		{"a year that can't be written", wire.PathUsage, entry("recordedAt", `"9999-12-31T23:59:59-10:00"`), 400, "invalid_field", "entries[1].recordedAt"},
		{"too large", wire.PathUsage, `{"entries":[` + strings.Repeat(" ", maxBatchBody) + `]}`, 413, "body_too_large", ""},
		{"no tag", wire.PathOutboundUsage, `{"items":[{"bytesUp":1,"bytesDown":1}]}`, 400, "invalid_field", "items[0].tag"},
		{"an event of no kind", wire.PathSessionEvents, `{"events":[{"userId":1,"protocol":"vless","eventType":"away","occurredAt":"2026-01-02T03:04:00Z"}]}`, 400, "invalid_field", "events[0].eventType"},
		{"an address that is none", wire.PathSessionEvents, `{"events":[{"userId":1,"protocol":"vless","eventType":"online","occurredAt":"2026-01-02T03:04:00Z","ipAddress":"x"}]}`, 400, "invalid_field", "events[0].ipAddress"},
		{"no revision", wire.PathApplied, `{}`, 400, "invalid_field", "revision"},
		{"no message", wire.PathError, `{}`, 400, "invalid_field", "message"},
		{"no name", wire.PathRegister, `{"code":"x"}`, 400, "invalid_field", "it is missing"},
		{"an unknown code", wire.PathRegister, `{"code":"x","name":"n","host":"h","ip":"","region":""}`, 403, "code_unknown", ""},
		{"no such route", "/node/nope", `{}`, 404, "no_route", ""},
		{"another method", wire.PathConfig, `{}`, 405, "method_not_allowed", "GET"},
	} {
		t.Run(r.name, func(t *testing.T) {
			a := c.post(r.path, "", r.body)
			var p struct{ Code, Detail string }
			if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("no problem JSON: %s", a.body)
			}
			if a.status != r.status || p.Code != r.code || !strings.Contains(p.Detail, r.says) {
				t.Errorf("%d %+v, want %d %s %q", a.status, p, r.status, r.code, r.says)
			}
		})
	}
	if rows, _, _ := c.sums(); rows != 0 {
		t.Errorf("%d rows of refused batches are stored", rows)
	}
	for _, key := range []string{"", "nk1_wrong"} {
		if a := c.send(http.MethodPost, wire.PathHeartbeat, map[string]string{"x-node-auth-key": key}, `{}`); a.status != http.StatusUnauthorized {
			t.Errorf("key %q: status %d", key, a.status)
		}
	}
}

// A request that ends before Core has stored its batch is not acknowledged.
func TestEndedRequestIsNotAcknowledged(t *testing.T) {
	c := newCore(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, wire.PathUsage, strings.NewReader(usageBody))
	r.Header.Set(wire.HeaderAuthKey, c.key)
	w := httptest.NewRecorder()
	c.http.Config.Handler.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q, want 503 with a time", w.Code, w.Header().Get("Retry-After"))
	}
	if rows, _, _ := c.sums(); rows != 0 {
		t.Errorf("%d rows are stored", rows)
	}
}

// Core keeps the versions that a node's heartbeats tell, without what would write to a
// terminal.
func TestVersionsOfANode(t *testing.T) {
	c := newCore(t)
	for _, row := range []struct{ header, agent string }{
		{"node-agent/1.2.3 xray/26.7.28 telemt/3.4.25", "node-agent/1.2.3 xray/26.7.28 telemt/3.4.25"},
		{"node-agent/1.2.4\txray/26.7.28\xff", "node-agent/1.2.4xray/26.7.28"},
		{strings.Repeat("a", 10_000), strings.Repeat("a", maxAgent)},
	} {
		c.want(http.StatusOK, c.send(http.MethodPost, wire.PathHeartbeat, map[string]string{"x-node-auth-key": c.key, "User-Agent": row.header}, `{}`), nil)
		node, err := c.store.Node(t.Context(), "node")
		if err != nil || node.Agent != row.agent {
			t.Errorf("of %q Core has %q, %v", row.header, node.Agent, err)
		}
	}
}
