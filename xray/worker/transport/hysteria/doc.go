// Package hysteria is the listener for Hysteria 2.
//
// It stands in the place of xray-core's, which, in version 26.7.28:
//
//   - gets the clients of an inbound only where the proxy is exactly a *hysteria.Server
//     (app/proxyman/inbound/worker.go:137), and the proxies of this project are wrapped by
//     package guard;
//   - tells no client when it closes, and sends no stateless reset after a crash (RFC 9000
//     section 10.3), so that clients stand still until their idle timeout, 30 seconds later.
//
// Streams and datagrams are those of the protocol's description (v2.hysteria.network/docs,
// "Hysteria 2 Protocol"). The words and numbers of the wire are xray-core's exported ones.
package hysteria
