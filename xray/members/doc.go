// Package members refuses members of Xray's objects that xray-core does not know and would
// silently ignore, and protocols that it does not have.
//
// The table of all members (xray.json) is made of xray-core's own configuration types by
// xray/worker/membertable. So the package is pure, and Core refuses with it what every node
// would refuse, in the same words.
package members

//go:generate go run ../worker/membertable
