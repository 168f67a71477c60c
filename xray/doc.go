// Package xray is the daemon's side of the Xray engine: the desired state, the
// difference of two states as a list of operations, and the Engine that keeps
// a worker process running in that state.
//
// The worker itself is package xray/worker; it alone imports xray-core. What
// passes between the two is in protocol.go.
package xray
