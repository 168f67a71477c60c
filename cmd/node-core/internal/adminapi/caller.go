package adminapi

import (
	"context"

	"nodeagent/coreapi"
)

// socketCaller is the name of the caller that uses the unix socket.
const socketCaller = "socket"

// caller is who sends a request.
type caller struct {
	name string // of the token, or socketCaller
	role coreapi.Role
}

type callerKey struct{}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns the caller of the request of ctx. Where there is none, the caller has no role.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}
