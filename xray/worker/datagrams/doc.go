// Package datagrams receives datagrams that are longer than xray-core's buffers.
//
// xray-core 26.7.28 reads a datagram into a buffer of 8,192 bytes: of its freedom outbound in
// proxy/freedom/freedom.go (PacketReader), of the inbounds that listen on UDP in
// transport/internet/udp/hub.go (Hub.start). The kernel cuts off the rest of a longer one, and
// the other side gets a datagram that nobody has sent. A Socket keeps the rest. Mask gives the
// inbounds such a socket, and Whole joins what they read from it. A Room lets more datagrams of one
// source wait than xray-core does.
package datagrams
