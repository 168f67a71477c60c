package adminapi

import (
	"context"

	"nodeagent/cmd/node-core/internal/corestore"
)

func (s *Server) userAdd(ctx context.Context, args UserArgs) (corestore.User, error) {
	if err := checkName("user", args.User); err != nil {
		return corestore.User{}, err
	}
	return s.store.AddUser(ctx, args.User)
}

func (s *Server) userList(ctx context.Context, _ struct{}) ([]corestore.User, error) {
	return s.store.Users(ctx)
}

func (s *Server) userRemove(ctx context.Context, args UserArgs) (Removed, error) {
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return Removed{}, err
	}
	nodes, err := s.store.RemoveUser(ctx, user.ID)
	if err != nil {
		return Removed{}, err
	}
	s.hub.Changed(nodes...)
	return Removed{Removed: user.Name}, nil
}
