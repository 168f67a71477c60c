package adminapi

import (
	"context"
	"net/http"

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
			Search string `query:"search" maxLength:"100" doc:"A part of the name."`
			Sort   string `query:"sort" enum:"id,-id,name,-name" default:"id"`
		},
		) (coreapi.Page[corestore.User], error) {
			list, err := in.list(in.Sort)
			if err != nil {
				return coreapi.Page[corestore.User]{}, err
			}
			return pageOf(s.store.ListUsers(ctx, in.Search, list))
		})
	read(a, operation{id: "user-show", method: http.MethodGet, path: "/users/{user}", noun: "users", summary: "Show a user", role: coreapi.ReadOnly},
		func(ctx context.Context, in *userIn) (corestore.User, error) { return s.store.User(ctx, in.User) })
	read(a, operation{id: "user-add", method: http.MethodPost, path: "/users", noun: "users", summary: "Add a user", role: coreapi.Support, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewUser }) (corestore.User, error) {
			return s.userAdd(ctx, userArgs{User: in.Body.Name})
		})
	change(a, operation{id: "user-remove", method: http.MethodDelete, path: "/users/{user}", noun: "users", summary: "Remove a user and the user's subscriptions; the usage rows are kept", role: coreapi.Operator},
		func(ctx context.Context, in *userIn) (coreapi.Removed, changed, error) {
			return s.userRemove(ctx, userArgs(*in))
		})
}

func (s *Server) userAdd(ctx context.Context, args userArgs) (corestore.User, error) {
	if err := checkName("user", args.User); err != nil {
		return corestore.User{}, err
	}
	return s.store.AddUser(ctx, args.User)
}

func (s *Server) userRemove(ctx context.Context, args userArgs) (coreapi.Removed, changed, error) {
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return coreapi.Removed{}, changed{}, err
	}
	nodes, err := s.store.RemoveUser(ctx, user.ID)
	return coreapi.Removed{Removed: user.Name}, changed{nodes: nodes, serving: true}, err
}
