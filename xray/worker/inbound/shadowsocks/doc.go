// Package shadowsocks is a Shadowsocks 2022 inbound for many users that takes the place
// of xray-core's own, over the same library (sing-shadowsocks).
//
// xray-core's inbound makes the keys of all users anew for each user that comes or goes,
// and takes a user who is removed in the middle of a handshake for another one. Both are so
// in xray-core 26.7.28 (proxy/shadowsocks_2022/inbound_multi.go:110 and 232):
// TestShadowsocksClientIsRemovedInHandshake and BenchmarkShadowsocksClients show it.
package shadowsocks
