// Package socks is a SOCKS inbound that takes the place of xray-core's own.
//
// xray-core's inbound accepts datagrams from every address that ever had a client, does
// not know which account they belong to, and forgets the addresses when an account comes
// or goes. Here a datagram belongs to the association that its client asked for.
package socks
