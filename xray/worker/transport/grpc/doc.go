// Package grpc is a listener for the gRPC transport.
//
// xray-core 26.7.28 listens in a goroutine and does not report an address that it cannot
// have (transport/internet/grpc/hub.go:121): TestGRPCThatCannotListenIsRefused. It ends its
// connections when it closes (hub.go:46), so that a change of the inbound would cut every
// client: TestGRPCConnectionsOutliveTheirListener.
package grpc
