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

// callerOf returns the caller that withCaller has put into ctx. A context without a caller gives one
// without a role, which may do nothing.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}
