// Package trust decides whose word counts for a client's address: the PROXY protocol and
// the X-Forwarded-For header are believed only when a proxy that the operator named, or
// a process on this host, sends them.
package trust
