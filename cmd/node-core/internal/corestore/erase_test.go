package corestore

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/coreapi"
)

// Names with letters beyond ASCII are found as they are written, and in every case of ASCII.
func TestSearchBeyondASCII(t *testing.T) {
	s := openStore(t)
	ctx := t.Context()
	for _, name := range []string{"Иван Petrov", "100%_\\", "other"} {
		user, err := s.AddUser(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.AddSubscription(ctx, user.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.AddNode(ctx, name, "", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for word, want := range map[string]int{"Иван": 1, "ван pET": 1, "PETROV": 1, "%_\\": 1, "%o": 0, "": 3} {
		users, _, err := s.ListUsers(ctx, UserFilter{Search: word}, List{})
		if err != nil || len(users) != want {
			t.Errorf("%q: %d users, want %d (%v)", word, len(users), want, err)
		}
		subs, err := s.FindSubscriptions(ctx, SubscriptionFilter{Search: word})
		if err != nil || len(subs) != want {
			t.Errorf("%q: %d subscriptions, want %d (%v)", word, len(subs), want, err)
		}
		nodes, _, err := s.ListNodes(ctx, word, List{})
		if err != nil || len(nodes) != want {
			t.Errorf("%q: %d nodes, want %d (%v)", word, len(nodes), want, err)
		}
	}
}

// Erase leaves a user's name and credentials neither in the audit log nor in answers that are kept
// for repeated requests; and it leaves those about others.
func TestEraseForgetsAnswersAndNames(t *testing.T) {
	s := openStore(t)
	ctx := t.Context()
	const name = "Иван & Co"
	user, err := s.AddUser(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := s.AddSubscription(ctx, user.ID)
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]string{
		"name": `{"name":"` + name + `"}`, "uuid": `{"link":"vless://` + sub.UUID + `@host"}`, "secret": `{"mtprotoSecret":"` + sub.MTProtoSecret + `"}`,
		"id": fmt.Sprintf(`{"id":1,"userId":%d,"note":""}`, user.ID), "other": fmt.Sprintf(`{"id":1,"userId":%d5,"name":"Иван"}`, user.ID),
	}
	for key, body := range answers {
		request := &Request{Key: key, Hash: []byte("x"), Audit: AuditEntry{Who: "w", Role: coreapi.Owner, Operation: "o", Target: "/users", Details: []byte(`{"key":"` + key + `","user":"Иван \u0026 Co"}`)}}
		if key == "other" {
			request.Audit.Details = []byte(`{"user":"other"}`)
		}
		if _, err := s.AddUser(ForRequest(ctx, request), "for "+key); err != nil {
			t.Fatal(err)
		}
		if err := s.KeepAnswer(ctx, "w", key, Answered{Status: 201, Header: `{"A":["b"]}`, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.inTransaction(ctx, func(tx *sql.Tx) error {
		return s.event(ctx, tx, Event{Kind: coreapi.EventFirstConnected, UserID: user.ID, SubscriptionID: sub.ID}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Erase(ctx, name); err != nil {
		t.Fatal(err)
	}
	if p, err := s.EventsAfter(ctx, EventQuery{Limit: 10}); err != nil || len(p.Events) != 1 || p.Events[0].User != "" || p.Events[0].UserID != 0 || p.Events[0].SubscriptionID != 0 {
		t.Errorf("after the erasure the events are %+v (%v)", p.Events, err)
	}
	for key := range answers {
		kept, err := s.Answered(ctx, "w", key)
		if err != nil || (key == "other") != (len(kept.Body) > 0 && kept.Status == 201) {
			t.Errorf("after the erasure the answer of %s is %d %s (%v)", key, kept.Status, kept.Body, err)
		}
	}
	entries, _, err := s.ListAudit(ctx, AuditFilter{}, List{})
	if err != nil || len(entries) != len(answers) {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	others := 0
	for _, e := range entries {
		if strings.Contains(string(e.Details), "Иван") {
			t.Errorf("the audit log has %s", e.Details)
		}
		if strings.Contains(string(e.Details), "other") {
			others++
		}
	}
	if others != 1 {
		t.Errorf("%d entries about others are left, want 1", others)
	}
}
