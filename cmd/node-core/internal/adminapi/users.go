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

func (s *Server) userRemove(ctx context.Context, args UserArgs) (Removed, changed, error) {
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return Removed{}, changed{}, err
	}
	nodes, err := s.store.RemoveUser(ctx, user.ID)
	return Removed{Removed: user.Name}, changed{nodes: nodes, serving: true}, err
}
