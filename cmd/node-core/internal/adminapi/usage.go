package adminapi

import (
	"context"

	"nodeagent/cmd/node-core/internal/corestore"
)

func (s *Server) usage(ctx context.Context, args LimitArgs) ([]corestore.UsageRow, error) {
	return s.store.Usage(ctx, limit(args))
}
