// Package reach keeps clients of the node's inbounds from the node itself: loopback, link-local
// and unspecified addresses, and the node's own addresses.
//
// xray-core's freedom outbound (proxy/freedom/freedom.go:155, version 26.7.28) blocks loopback and
// private networks for some protocols, and not for SOCKS, HTTP and tunnel inbounds. A first rule
// that allows everything turns that off, and it never blocks the node's public addresses.
//
// The address that is checked is the address that is dialled: the check is in xray-core's system
// dialer, behind every resolution of names. Whose choice an address is, is known where an outbound
// gets a stream: Choose marks the context of a stream whose client has chosen the destination. An
// address that the configuration has chosen is not marked: a redirect of a freedom outbound, the
// destination of a tunnel inbound, the server of an outbound, xray-core's own DNS queries.
package reach
