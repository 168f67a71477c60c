package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// userIn names a user in a path.
type userIn struct {
	User string `path:"user" doc:"Name or id of the user."`
}

func registerUsers(a api) {
	s := a.server
	read(a, operation{id: "user-list", method: http.MethodGet, path: "/users", noun: "users", summary: "List the users", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct {
			PageIn
			Search   string  `query:"search" maxLength:"100" doc:"A part of the name, the note or a contact."`
			Disabled bool    `query:"disabled" doc:"Only users who are disabled."`
			ID       []int64 `query:"id" maxItems:"500" doc:"Only users with these ids, divided by commas."`
			Sort     string  `query:"sort" enum:"id,-id,name,-name" default:"id"`
		},
		) (coreapi.Page[corestore.User], error) {
			list, err := in.list(in.Sort)
			if err != nil {
				return coreapi.Page[corestore.User]{}, err
			}
			return pageOf(s.store.ListUsers(ctx, corestore.UserFilter{Search: in.Search, Disabled: in.Disabled, IDs: in.ID}, list))
		})
	read(a, operation{id: "user-show", method: http.MethodGet, path: "/users/{user}", noun: "users", summary: "Show a user with the subscriptions", role: coreapi.ReadOnly, etag: corestore.KindUser},
		func(ctx context.Context, in *userIn) (userDetails, error) {
			details, err := s.userShow(ctx, userArgs{User: in.User})
			hideCredentials(ctx, details.Subscriptions)
			return details, err
		})
	read(a, operation{id: "user-add", method: http.MethodPost, path: "/users", noun: "users", summary: "Add a user", role: coreapi.Support, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewUser }) (corestore.User, error) {
			return s.userAdd(ctx, userArgs{User: in.Body.Name, UserEdit: coreapi.UserEdit{Note: in.Body.Note, Contact: in.Body.Contact}})
		})
	change(a, operation{id: "user-edit", method: http.MethodPatch, path: "/users/{user}", noun: "users", summary: "Change a user: name, note, contacts, and whether the user is let in", role: coreapi.Support, etag: corestore.KindUser},
		func(ctx context.Context, in *struct {
			User string `path:"user" doc:"Name or id of the user."`
			Body coreapi.UserEdit
		},
		) (corestore.User, changed, error) {
			return s.userEdit(ctx, userArgs{User: in.User, UserEdit: in.Body})
		})
	change(a, operation{id: "user-remove", method: http.MethodDelete, path: "/users/{user}", noun: "users", summary: "Remove a user and the user's subscriptions; the usage rows are kept", role: coreapi.Operator, etag: corestore.KindUser},
		func(ctx context.Context, in *userIn) (coreapi.Removed, changed, error) {
			return s.userRemove(ctx, userArgs{User: in.User})
		})
	change(a, operation{id: "user-erase", method: http.MethodPost, path: "/users/{user}/erase", noun: "users", summary: "Remove a user and everything that names the user; the sums of nodes and inbounds are kept", role: coreapi.Operator},
		func(ctx context.Context, in *userIn) (corestore.Erased, changed, error) {
			return s.userErase(ctx, userArgs{User: in.User})
		})
}

func (s *Server) userAdd(ctx context.Context, args userArgs) (corestore.User, error) {
	if err := checkName("user", args.User); err != nil {
		return corestore.User{}, err
	}
	user := corestore.User{Name: args.User}
	edit, err := userEditor(args.UserEdit)
	if err != nil {
		return user, err
	}
	if err := edit(&user); err != nil {
		return user, err
	}
	return s.store.InsertUser(ctx, user)
}

const (
	maxNote     = 10_000 // bytes
	maxContacts = 50
)

// checkNote refuses a note that is too long for a list.
func checkNote(note *string) error {
	if note != nil && len(*note) > maxNote {
		return badInput{fmt.Errorf("the note has %d bytes, want at most %d", len(*note), maxNote)}
	}
	return nil
}

// userEditor returns what sets the members of a user that args name.
func userEditor(args coreapi.UserEdit) (func(*corestore.User) error, error) {
	if args.Name != nil {
		if err := checkName("user", *args.Name); err != nil {
			return nil, err
		}
	}
	if err := checkNote(args.Note); err != nil {
		return nil, err
	}
	for kind, value := range args.Contact {
		if kind == "" || len(kind) > maxName || len(value) > maxNote || strings.ContainsFunc(kind+value, unicode.IsControl) {
			return nil, badInput{fmt.Errorf("contact %q: want a kind of 1 to %d bytes and a value of at most %d, without control characters", kind, maxName, maxNote)}
		}
	}
	return func(u *corestore.User) error {
		set(&u.Name, args.Name)
		set(&u.Note, args.Note)
		set(&u.Enabled, args.Enabled)
		if u.Contact == nil {
			u.Contact = map[string]string{}
		}
		for kind, value := range args.Contact {
			if value == "" {
				delete(u.Contact, kind)
			} else {
				u.Contact[kind] = value
			}
		}
		if len(u.Contact) > maxContacts {
			return badInput{fmt.Errorf("a user has at most %d contacts", maxContacts)}
		}
		return nil
	}, nil
}

func (s *Server) userShow(ctx context.Context, args userArgs) (details userDetails, err error) {
	if details.User, err = s.store.User(ctx, args.User); err != nil {
		return details, err
	}
	details.Subscriptions, err = s.store.FindSubscriptions(ctx, corestore.SubscriptionFilter{UserID: details.ID})
	return details, err
}

func (s *Server) userEdit(ctx context.Context, args userArgs) (corestore.User, changed, error) {
	edit, err := userEditor(args.UserEdit)
	if err != nil {
		return corestore.User{}, changed{}, err
	}
	user, nodes, err := s.store.EditUser(ctx, args.User, edit)
	c := changed{nodes: nodes, serving: true}
	if err == nil && user.Enabled {
		c.warnings = s.checkSubscription(ctx, nodes)
	}
	return user, c, err
}

func (s *Server) userRemove(ctx context.Context, args userArgs) (coreapi.Removed, changed, error) {
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return coreapi.Removed{}, changed{}, err
	}
	nodes, err := s.store.RemoveUser(ctx, user.ID)
	return coreapi.Removed{Removed: user.Name}, changed{nodes: nodes, serving: true}, err
}

func (s *Server) userErase(ctx context.Context, args userArgs) (corestore.Erased, changed, error) {
	erased, nodes, err := s.store.Erase(ctx, args.User)
	return erased, changed{nodes: nodes, serving: true}, err
}
