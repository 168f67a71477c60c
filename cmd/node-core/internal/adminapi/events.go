package adminapi

import (
	"context"

	"nodeagent/cmd/node-core/internal/corestore"
)

func (s *Server) events(ctx context.Context, args LimitArgs) ([]corestore.EventRow, error) {
	return s.store.Events(ctx, limit(args))
}
