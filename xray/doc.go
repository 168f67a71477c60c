// Package xray is the engine: it keeps a worker process running in a desired
// state.State, applies the difference to a new state, and rolls a change back that
// fails.
//
// What surrounds the engine has packages of its own: state (what runs, and the
// difference of two states), parse (from Core's document to a state), check (what Xray
// would accept and misbehave on), trust (whose word counts for an address), ipc (what
// daemon and worker say to each other). Package worker is the other process; it alone
// imports xray-core.
package xray
