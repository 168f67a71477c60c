package adminapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

const (
	maxBulkBody  = 32 << 20 // bytes
	maxBulkOfOne = 100      // subscriptions of one new user
)

func registerBulk(a api) {
	change(a, operation{id: "user-bulk", method: http.MethodPost, path: "/bulk/users", noun: "users", summary: "Add and change up to 10,000 users in one transaction: all of them, or none", role: coreapi.Support, maxBody: maxBulkBody},
		func(ctx context.Context, in *struct{ Body coreapi.BulkUsers }) (coreapi.BulkDone, changed, error) {
			return a.server.bulkUsers(ctx, in.Body)
		})
	change(a, operation{id: "subscription-bulk", method: http.MethodPost, path: "/bulk/subscriptions", noun: "subscriptions", summary: "Add and change up to 10,000 subscriptions in one transaction: all of them, or none", role: coreapi.Support, maxBody: maxBulkBody},
		func(ctx context.Context, in *struct{ Body coreapi.BulkSubscriptions }) (coreapi.BulkSubscriptionsDone, changed, error) {
			return a.server.bulkSubscriptions(ctx, in.Body)
		})
}

func (s *Server) bulkUsers(ctx context.Context, args coreapi.BulkUsers) (coreapi.BulkDone, changed, error) {
	done := coreapi.BulkDone{Created: []coreapi.BulkCreated{}}
	if n := len(args.Create) + len(args.Update); n > corestore.MaxBulk {
		return done, changed{}, badInput{fmt.Errorf("%d users at once: want at most %d", n, corestore.MaxBulk)}
	}
	add, err := s.bulkNew(ctx, args.Create)
	if err != nil {
		return done, changed{}, err
	}
	edits := make([]corestore.UserEdit, len(args.Update))
	for i, e := range args.Update {
		edit, err := userEditor(e.UserEdit)
		if err != nil {
			return done, changed{}, inRow("update", i, err)
		}
		edits[i] = corestore.UserEdit{User: e.User, Edit: edit}
	}
	nodes, err := s.store.BulkUsers(ctx, add, edits)
	if err != nil {
		return done, changed{}, err
	}
	done.Updated = len(edits)
	for _, u := range add {
		created := coreapi.BulkCreated{ID: u.ID, Name: u.Name, Subscriptions: []coreapi.BulkCredential{}}
		for _, sub := range u.Subscriptions {
			created.Subscriptions = append(created.Subscriptions, coreapi.BulkCredential{ID: sub.ID, UUID: sub.UUID, MTProtoSecret: sub.MTProtoSecret})
		}
		done.Created = append(done.Created, created)
	}
	return done, changed{nodes: nodes, serving: true, warnings: s.checkSubscription(ctx, nodes)}, nil
}

// bulkNew checks the new users and makes their rows.
func (s *Server) bulkNew(ctx context.Context, create []coreapi.BulkNewUser) ([]corestore.NewUser, error) {
	add, names := make([]corestore.NewUser, len(create)), map[string]bool{}
	editors := subscriptionEditors{server: s}
	for i, u := range create {
		if err := checkName("user", u.Name); err != nil {
			return nil, inRow("create", i, err)
		}
		if names[u.Name] {
			return nil, inRow("create", i, badInput{fmt.Errorf("user %q is named twice", u.Name)})
		}
		names[u.Name] = true
		edit, err := userEditor(coreapi.UserEdit{Note: u.Note, Contact: u.Contact})
		if err != nil {
			return nil, inRow("create", i, err)
		}
		add[i].Name = u.Name
		if err := edit(&add[i].User); err != nil {
			return nil, inRow("create", i, err)
		}
		if len(u.Subscriptions) > maxBulkOfOne {
			return nil, inRow("create", i, badInput{fmt.Errorf("%d subscriptions of one user: want at most %d", len(u.Subscriptions), maxBulkOfOne)})
		}
		for _, wanted := range u.Subscriptions {
			edit, err := editors.of(ctx, wanted)
			if err != nil {
				return nil, inRow("create", i, err)
			}
			var sub corestore.Subscription
			edit(&sub)
			add[i].Subscriptions = append(add[i].Subscriptions, sub)
		}
	}
	return add, nil
}

// subscriptionEditors has what sets the members of subscriptions: most in one call have the same terms.
type subscriptionEditors struct {
	server *Server
	known  map[string]func(*corestore.Subscription) // by the JSON of the edit
}

func (e *subscriptionEditors) of(ctx context.Context, wanted coreapi.SubscriptionEdit) (func(*corestore.Subscription), error) {
	key, err := json.Marshal(wanted)
	if err != nil {
		return nil, err
	}
	if edit := e.known[string(key)]; edit != nil {
		return edit, nil
	}
	edit, err := e.server.subscriptionEditor(ctx, subscriptionArgs{SubscriptionEdit: wanted})
	if err != nil {
		return nil, err
	}
	if e.known == nil {
		e.known = map[string]func(*corestore.Subscription){}
	}
	e.known[string(key)] = edit
	return edit, nil
}

func (s *Server) bulkSubscriptions(ctx context.Context, args coreapi.BulkSubscriptions) (coreapi.BulkSubscriptionsDone, changed, error) {
	done := coreapi.BulkSubscriptionsDone{Created: []coreapi.BulkCredential{}}
	if n := len(args.Create) + len(args.Update); n > corestore.MaxBulk {
		return done, changed{}, badInput{fmt.Errorf("%d subscriptions at once: want at most %d", n, corestore.MaxBulk)}
	}
	editors := subscriptionEditors{server: s}
	add, edits := make([]corestore.NewSubscription, len(args.Create)), make([]corestore.SubscriptionEdit, len(args.Update))
	for i, wanted := range args.Create {
		edit, err := editors.of(ctx, wanted.SubscriptionEdit)
		if err != nil {
			return done, changed{}, inRow("create", i, err)
		}
		add[i].User = wanted.User
		edit(&add[i].Subscription)
	}
	for i, wanted := range args.Update {
		edit, err := editors.of(ctx, wanted.SubscriptionEdit)
		if err != nil {
			return done, changed{}, inRow("update", i, err)
		}
		edits[i] = corestore.SubscriptionEdit{Subscription: wanted.Subscription, Edit: func(sub *corestore.Subscription) error {
			edit(sub)
			set(&sub.Enabled, wanted.Enabled)
			return nil
		}}
	}
	nodes, err := s.store.BulkSubscriptions(ctx, add, edits)
	if err != nil {
		return done, changed{}, err
	}
	done.Updated = len(edits)
	for _, sub := range add {
		done.Created = append(done.Created, coreapi.BulkCredential{ID: sub.ID, UUID: sub.UUID, MTProtoSecret: sub.MTProtoSecret})
	}
	return done, changed{nodes: nodes, serving: true, warnings: s.checkSubscription(ctx, nodes)}, nil
}

// inRow says in which row of a body an error is.
func inRow(list string, i int, err error) error {
	if bad, is := err.(badInput); is { //nolint:errorlint // it is made here and not wrapped
		return badInput{fmt.Errorf("%s[%d]: %w", list, i, bad.error)}
	}
	return fmt.Errorf("%s[%d]: %w", list, i, err)
}
