// Package hysteria handles the datagrams of a Hysteria 2 inbound. Streams are handled by
// xray-core's own inbound.
//
// A datagram that does not fit into one DATAGRAM frame of QUIC (RFC 9221) travels in up to 255
// messages, the fragments: a packet ID, the number of the fragment and their count are in the
// header of each one. xray-core 26.7.28 (proxy/hysteria/protocol.go, client.go):
//
//   - forgets a datagram of which fragments are missing as soon as a fragment of another one
//     comes, so that two datagrams whose fragments are mixed are both lost;
//   - drops datagrams of more than 8,192 bytes in both directions;
//   - gives fragments random packet IDs, which repeat while a fragment is on its way.
package hysteria
