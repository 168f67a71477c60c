// Package state says what a worker runs and how to get from one such state to another.
//
// A [State] is the whole of it: inbounds with their clients, outbounds, routing, DNS,
// policy. [Diff] compares two states and returns the [Operation]s that lead from one to
// the other. [State.After] says what an operation means. All of that is pure: no file,
// no socket, no clock.
//
// The package also knows the protocols: which of them have users that change one by one,
// where their clients stand in the configuration, and on which addresses, ports and
// networks an inbound listens ([Inbound.Bindings]).
package state
