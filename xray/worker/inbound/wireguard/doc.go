// Package wireguard serves WireGuard inbounds, in the place of xray-core's own inbound,
// over the same libraries.
//
// xray-core 26.7.28 changes peers while it serves, and still lacks three things. It looks
// for a connection's peer in a map without an order and takes the first whose allowedIPs
// have the address (proxy/wireguard/server.go:195), so that of two peers whose networks
// overlap either one is counted: TestLookupAddress. It tells rules neither the address nor
// the port on which the datagrams came (proxy/wireguard/server.go:357) and listens on the
// first port of several alone (app/proxyman/inbound/always.go:65). It takes no peers before
// it listens (proxy/wireguard/server.go:141), and a change that fails must find them all or
// none: TestWireGuardPeersUnderLoad.
package wireguard
