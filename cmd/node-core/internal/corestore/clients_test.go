package corestore

import (
	"fmt"
	"reflect"
	"sync"
	"testing"

	"nodeagent/coreclient/wire"
)

// The changes since a number lead to the clients of now: whatever lets in or out has a number, and
// nothing else has.
func TestChangesLeadToAllClients(t *testing.T) {
	s := openStore(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	user, err := s.AddUser(t.Context(), "u")
	must(err)
	known := map[int64]*Client{}
	all, seq, err := s.AllClients(t.Context())
	must(err)
	for _, c := range all {
		known[c.ID] = c
	}
	var sub Subscription
	many := []NewUser{{User: User{Name: "v"}, Subscriptions: make([]Subscription, 250)}}
	edit := func(f func(*Subscription)) func() error {
		return func() error {
			_, _, err := s.EditSubscription(t.Context(), fmt.Sprint(sub.ID), func(sub *Subscription) error { f(sub); return nil })
			return err
		}
	}
	enable := func(enabled bool) func() error {
		return func() error {
			_, _, err := s.EditUser(t.Context(), user.Name, func(u *User) error { u.Enabled = enabled; return nil })
			return err
		}
	}
	for _, step := range []struct {
		name    string
		do      func() error
		changes int
	}{
		{"add one", func() (err error) { sub, _, err = s.AddSubscription(t.Context(), user.ID); return err }, 1},
		{"add many", func() error {
			_, err := s.BulkUsers(t.Context(), many, nil)
			return err
		}, 250},
		{"limit it", edit(func(sub *Subscription) { sub.LimitIPs = 3 }), 1},
		{"note something", edit(func(sub *Subscription) { sub.Note = "n" }), 0},
		{"limit its bytes, which nodes do not know", edit(func(sub *Subscription) { sub.LimitBytes = 1 << 40 }), 0},
		{"give it a credential", edit(func(sub *Subscription) { sub.Credentials = []Credential{{Protocol: "vless", ID: "i"}} }), 1},
		{"rotate it", edit(func(sub *Subscription) { sub.Rotate() }), 1},
		{"disable it", edit(func(sub *Subscription) { sub.Enabled = false }), 1},
		{"limit it while it is disabled", edit(func(sub *Subscription) { sub.LimitIPs = 4 }), 0},
		{"disable the user", enable(false), 0},
		{"enable it, and not its user", edit(func(sub *Subscription) { sub.Enabled = true }), 0},
		{"enable the user", enable(true), 1},
		{"count bytes", func() error {
			_, err := s.AddUsage(t.Context(), 1, "k", []wire.UsageEntry{{UserID: user.ID, SubscriptionID: &sub.ID, NodeProtocolID: 1, BytesUp: 5}})
			return err
		}, 0},
		{"remove it", func() error { _, err := s.RemoveSubscription(t.Context(), fmt.Sprint(sub.ID)); return err }, 1},
		{"remove a user with many", func() error { _, err := s.RemoveUser(t.Context(), many[0].ID); return err }, 250},
	} {
		must(step.do())
		changes, next, lost, err := s.ClientChanges(t.Context(), seq)
		must(err)
		if lost || len(changes) != step.changes || next < seq {
			t.Errorf("%s: %d changes from %d to %d (lost: %v), want %d", step.name, len(changes), seq, next, lost, step.changes)
		}
		seq = next
		for _, c := range changes {
			if known[c.ID] = c.Client; c.Client == nil {
				delete(known, c.ID)
			}
		}
		all, _, err := s.AllClients(t.Context())
		must(err)
		want := map[int64]*Client{}
		for _, c := range all {
			want[c.ID] = c
		}
		if !reflect.DeepEqual(known, want) {
			t.Fatalf("%s: the changes lead to %d clients, and there are %d, or they differ", step.name, len(known), len(want))
		}
	}
	must(s.forgetClientChanges(t.Context()))
	if _, again, lost, err := s.ClientChanges(t.Context(), seq); err != nil || lost || again != seq {
		t.Errorf("after upkeep: %d, %v, %v", again, lost, err)
	}
	if _, _, lost, err := s.ClientChanges(t.Context(), seq+1); err != nil || !lost {
		t.Errorf("a number that the database never had: %v, %v", lost, err)
	}
}

// Documents that are made at one time are all stored, also those that wait for others.
func TestDocumentsAreNotedTogether(t *testing.T) {
	s := openStore(t)
	var nodes []Node
	for i := range 40 {
		node, _, err := s.AddNode(t.Context(), fmt.Sprintf("n%d", i), "", 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	var all sync.WaitGroup
	for _, node := range nodes {
		all.Go(func() {
			if err := s.NoteDocument(t.Context(), node.ID, node.Revision, `"`+node.Name+`"`); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, node := range nodes {
		var etag string
		if err := s.read.QueryRowContext(t.Context(), `SELECT document_etag FROM nodes WHERE id = ?`, node.ID).Scan(&etag); err != nil || etag != `"`+node.Name+`"` {
			t.Errorf("node %s: %s, %v", node.Name, etag, err)
		}
	}
}
