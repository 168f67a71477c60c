package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
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
	if _, _, err := s.Erase(ctx, name); err != nil {
		t.Fatal(err)
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

// Erase takes the names that a user had before out of the audit log, and leaves the entries about the
// next user who has such a name. Events about the user go too.
func TestEraseFindsFormerNames(t *testing.T) {
	s := openStore(t)
	ctx := t.Context()
	audited := func(operation, target string) context.Context {
		return ForRequest(ctx, &Request{Audit: AuditEntry{Who: "w", Role: coreapi.Owner, Operation: operation, Target: target, Details: []byte(`{}`)}})
	}
	rename := func(from, to string) {
		if _, _, err := s.EditUser(audited("user-edit", "/users/"+from), from, func(u *User) error { u.Name = to; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	first, err := s.AddUser(audited("user-add", "/users/alice"), "alice")
	if err != nil {
		t.Fatal(err)
	}
	rename("alice", "bob")
	rename("bob", "carol")
	for renamed := time.Now(); millis(time.Now()) <= millis(renamed); { // the log's times are of milliseconds
	}
	if _, err := s.AddUser(audited("user-add", "/users/alice"), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := s.inTransaction(ctx, func(tx *sql.Tx) error {
		return s.event(ctx, tx, Event{Kind: coreapi.EventFirstConnected, UserID: first.ID, User: "bob"}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Erase(ctx, "carol"); err != nil {
		t.Fatal(err)
	}
	entries, _, err := s.ListAudit(ctx, AuditFilter{}, List{})
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, e := range entries {
		targets = append(targets, e.Target)
	}
	if want := []string{"/users/(erased)", "/users/(erased)", "/users/(erased)", "/users/alice"}; !slices.Equal(targets, want) {
		t.Errorf("the audit log is about %q, want %q", targets, want)
	}
	for _, table := range []string{"former_names", "events"} {
		var left int
		if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM `+table+` WHERE user_id = ?`, first.ID).Scan(&left); err != nil || left != 0 {
			t.Errorf("%d rows about the user are left in %s, %v", left, table, err)
		}
	}
}

// Erase leaves neither what was set for the user's devices in the audit log, nor answers with credentials
// that were imported; and it leaves those about others.
func TestEraseForgetsDevicesAndImportedCredentials(t *testing.T) {
	s := openStore(t)
	ctx := t.Context()
	user, err := s.AddUser(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := s.AddSubscription(ctx, user.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.ExecContext(ctx, `UPDATE subscriptions SET credentials = ? WHERE id = ?`, `[{"protocol":"socks","id":"al","password":"a password of hers"}]`, sub.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.ExecContext(ctx, `INSERT INTO devices (id, subscription_id, hwid, first_seen_at, last_seen_at) VALUES (7, ?, 'h', 1, 1)`, sub.ID); err != nil {
		t.Fatal(err)
	}
	answers := map[string]string{"id": `{"user":"al"}`, "password": `{"link":"x:a password of hers@"}`, "other": `{"name":"also"}`}
	for key, body := range answers {
		target := "/devices/7"
		if key == "other" {
			target = "/devices/77"
		}
		request := &Request{Key: key, Hash: []byte("x"), Audit: AuditEntry{Who: "w", Role: coreapi.Owner, Operation: "device-edit", Target: target, Details: []byte(`{"name":"phone"}`)}}
		if _, err := s.AddUser(ForRequest(ctx, request), "for "+key); err != nil {
			t.Fatal(err)
		}
		if err := s.KeepAnswer(ctx, "w", key, Answered{Status: 201, Header: `{}`, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Erase(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	for key := range answers {
		kept, err := s.Answered(ctx, "w", key)
		if err != nil || (key == "other") != (len(kept.Body) > 0) {
			t.Errorf("after the erasure the answer of %s is %d %s (%v)", key, kept.Status, kept.Body, err)
		}
	}
	entries, _, err := s.ListAudit(ctx, AuditFilter{}, List{})
	if err != nil || len(entries) != len(answers) {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if strings.Contains(string(e.Details), "phone") != (e.Target == "/devices/77") {
			t.Errorf("the audit log has %s %s", e.Target, e.Details)
		}
	}
}
