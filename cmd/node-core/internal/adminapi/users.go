package adminapi

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
)

func (s *Server) userAdd(ctx context.Context, args UserArgs) (corestore.User, error) {
	if err := checkName("user", args.User); err != nil {
		return corestore.User{}, err
	}
	user := corestore.User{Name: args.User}
	edit, err := userEditor(args)
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
func userEditor(args UserArgs) (func(*corestore.User) error, error) {
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

func (s *Server) userList(ctx context.Context, args UserListArgs) ([]corestore.User, error) {
	return s.store.FindUsers(ctx, corestore.UserFilter{Search: args.Search, Disabled: args.Disabled})
}

func (s *Server) userShow(ctx context.Context, args UserArgs) (details UserDetails, err error) {
	if details.User, err = s.store.User(ctx, args.User); err != nil {
		return details, err
	}
	details.Subscriptions, err = s.store.FindSubscriptions(ctx, corestore.SubscriptionFilter{UserID: details.ID})
	return details, err
}

func (s *Server) userEdit(ctx context.Context, args UserArgs) (corestore.User, changed, error) {
	edit, err := userEditor(args)
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

func (s *Server) userRemove(ctx context.Context, args UserArgs) (Removed, changed, error) {
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return Removed{}, changed{}, err
	}
	nodes, err := s.store.RemoveUser(ctx, user.ID)
	return Removed{Removed: user.Name}, changed{nodes: nodes, serving: true}, err
}

func (s *Server) userErase(ctx context.Context, args UserArgs) (corestore.Erased, changed, error) {
	erased, nodes, err := s.store.Erase(ctx, args.User)
	return erased, changed{nodes: nodes, serving: true}, err
}
