// Package xray is the engine: it keeps a worker process running in a desired
// state.State, applies the difference to a new state, and rolls a failed change back.
//
// The packages around the engine are: state (what a worker runs, and the difference of two
// states), parse (from Core's document to a state), check (settings that Xray accepts
// silently and then misbehaves on), trust (which proxies may name a client's address), and
// ipc (the messages between daemon and worker). Package worker is the other process. Only
// worker and the packages below it import xray-core.
//
// Engine is one type whose goroutine owns all of its state. Each of its jobs has a file: applying, trying,
// draining, adopting, spare sockets, and so on.
package xray
