// Package socks is a SOCKS inbound that takes the place of xray-core's own. A datagram
// belongs to the association that its client asked for (RFC 1928, section 7).
//
// xray-core 26.7.28 knows associations too, and gives each a socket of its own on a random
// port (proxy/socks/protocol.go:206). It still lacks this: datagrams on the inbound's own
// port, which is the one that a firewall lets through, where settings.ip names an address
// that the host itself does not have (TestSOCKSDatagrams); an HTTP proxy on that port that
// lets nobody in where accounts are asked for and none is there (proxy/socks/server.go:48,
// TestSOCKSWithoutAnyAccount); and a bound for the associations of one address
// (TestAssociationsAreBounded). It reads datagrams in a goroutine that no guard covers
// (proxy/socks/server.go:173): a panic there would end the process.
package socks
