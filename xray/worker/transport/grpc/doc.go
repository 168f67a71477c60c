// Package grpc is a listener for the gRPC transport. xray-core's listener believes every
// request's x-real-ip, does not report a port that it cannot have, and ends its
// connections when it closes.
package grpc
