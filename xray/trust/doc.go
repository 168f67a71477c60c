// Package trust decides whether an inbound believes a client's address that a proxy tells,
// in the header of the PROXY protocol or in X-Forwarded-For. An inbound believes it only
// from a proxy that the operator named and from processes on this host.
package trust
