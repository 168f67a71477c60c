// Package mkcp bounds what strangers make an mKCP listener hold. xray-core's listener
// (transport/internet/kcp/listener.go:85) makes a connection, with 6.5 KB and goroutines, of each
// datagram that belongs to none. The protocol has no way to prove an address.
package mkcp
