package adminapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// Thousands of users with subscriptions come in one call.
func TestBulk(t *testing.T) {
	s := newServer(t)
	c := overSocket(t, s)
	bulk := coreapi.BulkUsers{}
	limit := int64(1 << 30)
	const users = 2000
	for i := range users {
		bulk.Create = append(bulk.Create, coreapi.BulkNewUser{
			NewUser:       coreapi.NewUser{Name: fmt.Sprint("user-", i)},
			Subscriptions: []coreapi.SubscriptionEdit{{TermsEdit: coreapi.TermsEdit{LimitBytes: &limit}}},
		})
	}
	before, err := s.store.Node(t.Context(), "fra1")
	if err != nil {
		t.Fatal(err)
	}
	done, _, err := c.Bulk(t.Context(), bulk)
	if err != nil || len(done.Created) != users {
		t.Fatalf("%d users, %v", len(done.Created), err)
	}
	last := done.Created[len(done.Created)-1]
	sub, err := s.store.Subscription(t.Context(), last.Subscriptions[0].UUID)
	if err != nil || sub.ID != last.Subscriptions[0].ID || sub.UserID != last.ID || sub.LimitBytes != limit || sub.Status != coreapi.Active {
		t.Errorf("got %+v, %v for %+v", sub, err, last)
	}
	if node, err := s.store.Node(t.Context(), "fra1"); err != nil || node.Revision <= before.Revision {
		t.Errorf("the node's revision is %d as before (%v)", node.Revision, err)
	}
	if _, err := s.store.AddUser(t.Context(), "after"); err != nil {
		t.Errorf("the next id is taken: %v", err)
	}
	off := false
	edited, change, err := c.Bulk(t.Context(), coreapi.BulkUsers{Update: []coreapi.BulkUserEdit{
		{User: "user-0", UserEdit: coreapi.UserEdit{Enabled: &off}}, {User: fmt.Sprint(last.ID), UserEdit: coreapi.UserEdit{Note: new("n")}},
	}})
	if err != nil || edited.Updated != 2 || len(change.Nodes) != 0 { // fra1 serves nobody yet
		t.Errorf("got %+v, %+v, %v", edited, change, err)
	}
	if user, err := s.store.User(t.Context(), "user-0"); err != nil || user.Enabled {
		t.Errorf("got %+v, %v", user, err)
	}
}

// One wrong row, and nothing is changed.
func TestBulkIsAllOrNothing(t *testing.T) {
	s := newServer(t)
	if _, err := s.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	token := addToken(t, s, coreapi.NewToken{Name: "shop", Role: coreapi.Support})
	for name, c := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"a name that is taken":     {`{"create":[{"name":"bob"},{"name":"alice"}]}`, http.StatusConflict, `user \"alice\"`},
		"a name twice":             {`{"create":[{"name":"bob"},{"name":"bob"}]}`, http.StatusBadRequest, `create[1]: user \"bob\" is named twice`},
		"a name that can't be":     {`{"create":[{"name":"bob"},{"name":"7"}]}`, http.StatusBadRequest, `create[1]: `},
		"an unknown plan":          {`{"create":[{"name":"bob","subscriptions":[{"plan":"gold"}]}]}`, http.StatusNotFound, `create[0]: plan gold`},
		"an edit of nobody":        {`{"create":[{"name":"bob"}],"update":[{"user":"carol","note":"x"}]}`, http.StatusNotFound, `update[0]: user carol`},
		"an edit to a taken name":  {`{"create":[{"name":"bob"}],"update":[{"user":"alice","name":"bob"}]}`, http.StatusConflict, `update[0]: user \"bob\"`},
		"terms that mean nothing":  {`{"create":[{"name":"bob","subscriptions":[{"limitBytes":-1}]}]}`, http.StatusBadRequest, `create[0]: `},
		"a wrong edit at the end":  {`{"update":[{"user":"alice","note":"x"},{"user":"alice","name":"9"}]}`, http.StatusBadRequest, `update[1]: `},
		"a member that is unknown": {`{"creat":[]}`, http.StatusUnprocessableEntity, `creat`},
	} {
		w := request(t, s, http.MethodPost, coreapi.Prefix+"/bulk/users", token, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: got %d, %s", name, w.Code, w.Body)
		}
		users, err := s.store.Users(t.Context())
		if err != nil || len(users) != 1 || users[0].Note != "" {
			t.Errorf("%s: the users are %+v, %v", name, users, err)
		}
	}
	if w := request(t, s, http.MethodPost, coreapi.Prefix+"/bulk/users", token, `{"create":[`+strings.TrimSuffix(strings.Repeat(`{"name":"x"},`, corestore.MaxBulk+1), ",")+`]}`); w.Code != http.StatusBadRequest {
		t.Errorf("too many: got %d", w.Code)
	}
}

// Thousands of subscriptions come in one call for users who are there, and are changed in one.
func TestBulkOfSubscriptions(t *testing.T) {
	s := newServer(t)
	c := overSocket(t, s)
	if _, err := s.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	const subs = 1000
	limit := int64(1 << 30)
	bulk := coreapi.BulkSubscriptions{Create: make([]coreapi.NewSubscription, subs)}
	for i := range bulk.Create {
		bulk.Create[i] = coreapi.NewSubscription{User: "alice", SubscriptionEdit: coreapi.SubscriptionEdit{TermsEdit: coreapi.TermsEdit{LimitBytes: &limit}}}
	}
	done, _, err := c.BulkSubscriptions(t.Context(), bulk)
	if err != nil || len(done.Created) != subs {
		t.Fatalf("%d subscriptions, %v", len(done.Created), err)
	}
	off, note := false, "n"
	edits := coreapi.BulkSubscriptions{Update: []coreapi.BulkSubscriptionEdit{
		{Subscription: done.Created[subs-1].UUID, Enabled: &off},
		{Subscription: fmt.Sprint(done.Created[0].ID), SubscriptionEdit: coreapi.SubscriptionEdit{Note: &note}},
	}}
	if edited, _, err := c.BulkSubscriptions(t.Context(), edits); err != nil || edited.Updated != 2 {
		t.Fatalf("got %+v, %v", edited, err)
	}
	for id, want := range map[int64]corestore.Subscription{done.Created[0].ID: {Status: coreapi.Active, Note: note}, done.Created[subs-1].ID: {Status: coreapi.Disabled}} {
		sub, err := s.store.Subscription(t.Context(), fmt.Sprint(id))
		if err != nil || sub.Status != want.Status || sub.Note != want.Note || sub.LimitBytes != limit {
			t.Errorf("subscription %d: got %+v, %v", id, sub, err)
		}
	}
	token := addToken(t, s, coreapi.NewToken{Name: "shop", Role: coreapi.Support})
	for name, c := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"an unknown user":         {`{"create":[{"user":"alice"},{"user":"bob"}]}`, http.StatusNotFound, `create[1]: user bob`},
		"an unknown plan":         {`{"create":[{"user":"alice","plan":"gold"}]}`, http.StatusNotFound, `create[0]: plan gold`},
		"terms that mean nothing": {`{"update":[{"subscription":"1","limitBytes":-1}]}`, http.StatusBadRequest, `update[0]: `},
		"an unknown subscription": {`{"create":[{"user":"alice"}],"update":[{"subscription":"99999"}]}`, http.StatusNotFound, `update[0]: subscription 99999`},
		"too many":                {`{"create":[` + strings.TrimSuffix(strings.Repeat(`{"user":"alice"},`, corestore.MaxBulk+1), ",") + `]}`, http.StatusBadRequest, `at most 10000`},
	} {
		w := request(t, s, http.MethodPost, coreapi.Prefix+"/bulk/subscriptions", token, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: got %d, %s", name, w.Code, w.Body)
		}
		if all, err := s.store.Subscriptions(t.Context()); err != nil || len(all) != subs {
			t.Errorf("%s: there are %d subscriptions, %v", name, len(all), err)
		}
	}
}
