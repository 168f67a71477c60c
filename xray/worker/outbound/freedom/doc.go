// Package freedom lets xray-core's freedom outbound receive datagrams of every size.
//
// xray-core 26.7.28 reads a datagram into a buffer of 8,192 bytes (proxy/freedom/freedom.go,
// PacketReader): the kernel cuts off the rest of a longer one, and the client gets a datagram
// that nobody has sent. WholeDatagrams keeps the rest and joins it again.
package freedom
