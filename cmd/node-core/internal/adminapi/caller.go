package adminapi

import (
	"context"

	"nodeagent/coreapi"
)

// caller is who sends a request.
type caller struct {
	name string // of the token, or socket
	role coreapi.Role
}

type callerKey struct{}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns who sends the request of ctx: nobody, who has no role, where nothing says it.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}
